"""`python -m mlflow_llamaduo.base_models.gguf FILE FOLDER`: a GGUF model as safetensors.

transformers can load GGUF and refuses to save what it loaded, so the weights go into a fresh model first. They
are written in bfloat16, which is half the size of float32; the originals have 4 bits.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging


def convert(file: Path, folder: Path) -> None:
    """Write `folder` (safetensors, config, tokenizer with chat template) from one GGUF file."""
    logging.set_verbosity_error()
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # else every later load takes it for a GGUF model
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
