"""A base with an adapter merged into its weights: what any other program loads that knows no adapters.

    W + scale * B A        in float32, rounded once to the base's own number format

In float32 the merged base says what base and adapter say. In bfloat16 its weights are rounded where the adapter's
were not: of two tokens that are nearly as likely as each other it may choose the other one.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.inference.adapters import Adapter, read

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
"""Of the base: written anew."""
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "*.jinja", "vocab*", "merges.txt")
"""Of the adapter: what its training has read and written with."""


def merge(base: Path, adapter: Path, target: Path) -> str:
    """Write the merged base into the folder `target`, with the adapter's tokenizer and template.

    Memory: the base once in its own number format, and one layer in float32.

    Args:
        base: the base model's folder.
        adapter: what PEFT has saved.
        target: a folder with the base's other files.

    Returns:
        The number format of the weights, such as `bfloat16`.

    Raises:
        FileNotFoundError: there is no adapter in the folder.
        DataError: it is more than plain LoRA, is not of this base, or changes weights that two layers share.
    """
    found = read(adapter)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype="auto", use_safetensors=True)
    with torch.no_grad():
        for name, (a, b) in found.parts.items():
            weight = _weight(model, name, found)
            weight.copy_(weight.float() + found.scale * (b.float() @ a.float()))
    model.save_pretrained(str(target))
    generation = target / "generation_config.json"
    if (base / generation.name).is_file():
        shutil.copyfile(base / generation.name, generation)
    for pattern in TOKENIZER:
        for file in adapter.glob(pattern):
            shutil.copyfile(file, target / file.name)
    return str(model.dtype).removeprefix("torch.")


def _weight(model: Any, name: str, adapter: Adapter) -> torch.Tensor:
    try:
        linear = model.get_submodule(name)
    except AttributeError:
        linear = None
    if not isinstance(linear, nn.Linear):
        raise DataError(f"{adapter.folder}: the adapter is not of this base, which has no linear layer {name}")
    if linear.weight is getattr(model.get_input_embeddings(), "weight", None):
        raise DataError(f"{adapter.folder}: {name} shares its weights with the embeddings: export without --merged")
    a, b = adapter.parts[name]
    if (b.shape[0], a.shape[1]) != tuple(linear.weight.shape) or a.shape[0] != b.shape[1]:
        raise DataError(
            f"{adapter.folder}: the adapter's {name} is not of this base: {tuple(a.shape)}, {tuple(b.shape)}"
        )
    weight: torch.Tensor = linear.weight
    return weight
