"""An adapter for the real small model, made up: random weights, large enough to change every answer."""

from pathlib import Path

RANK = 16


def made_up_adapter(base: Path, folder: Path, *, seed: int = 0, size: float = 0.05) -> Path:
    """Write a LoRA adapter as training does: safetensors, its configuration, tokenizer and template beside it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32),
        LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=size)
    model.save_pretrained(str(folder), safe_serialization=True)
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(folder))
    return folder
