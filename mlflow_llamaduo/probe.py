"""Ask the model that fine-tuning has in memory the probes of `core.parity`, and say by which facts it was trained.

The worker calls `as_trained` with the best adapter loaded, and `write` puts what it said beside the adapter. The
served side is asked by `mlflow_llamaduo.parity`, through what serving itself calls; `facts` reads both sides alike.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.core.parity import PROBES_FILE, TOKENS, TOP, Facts, Probe, Probed
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.files import write_atomic

Ids = Sequence[int]
Said = tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], list[tuple[int, ...]]]

WEIGHTS = "adapter_model.safetensors"
FLASH = "flash_attention_2"


def as_trained(
    model: Any,
    tokenizer: Any,
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    base: BaseModelFolder,
    adapter: Path,
) -> Probed:
    """What a model says as it was trained.

    Args:
        model: a PEFT model on its base, quantized or not; it is asked in eval mode and left as it was.
        tokenizer: the one that made the training rows.
        rows: token ids of prompt (as `chat_template.prompt_ids` makes them) and response, end token
            and all, of a few dev pairs; none is shortened.
        base: the base model on this machine; where it was quantized, the adapter in memory is asked on it whole, too.
        adapter: the folder that the adapter was saved in.
    """
    prompts = [prompt for prompt, _ in rows]
    replies = [reply[:TOKENS] for _, reply in rows]
    found = facts(model, tokenizer, lora=_lora(model), base=base.name, base_digest=base.digest, adapter=adapter)
    if found.quantization == "none":
        with _asked(model):
            on, off, choices = said(model, prompts, replies, model.disable_adapter)
        quantized = on
    else:
        with _asked(model), torch.no_grad():  # each reading unpacks all weights anew: no more than needed
            quantized = [_read(model, prompt, ())[0] for prompt in prompts]
        whole = _whole(model, base.path, found.dtype)
        on, off, choices = said(whole, prompts, replies, whole.disable_adapter)
    first = [np.argsort(-row, kind="stable")[:TOP] for row in on]
    answers = [_begun(tokenizer, *row) for row in zip(replies, choices, strict=True)]
    return Probed(found, probes(prompts, replies, first, (on, off, choices), answers, quantized))


def write(folder: Path, probed: Probed) -> None:
    """Into `probes.json` of an adapter's folder; log-probabilities to 4 digits after the point."""
    write_atomic(folder / PROBES_FILE, json.dumps(asdict(probed)))


def said(
    model: Any, prompts: Sequence[Ids], replies: Sequence[Ids], bare: Callable[[], AbstractContextManager[Any]]
) -> Said:
    """Log-probabilities [vocabulary] of each answer's first token with the adapter and without, and greedy choices.

    One conversation at a time, so that no padding changes a number, and without generating: a base that is quantized
    is unpacked anew for every token, which on two cores takes longer than reading all of a prompt.
    """
    with torch.no_grad():
        rows = [_read(model, prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]
        with bare():
            off = [_read(model, prompt, ())[0] for prompt in prompts]
    return [row[0] for row in rows], off, [tuple(row.argmax(axis=-1).tolist()) for row in rows]


def probes(
    prompts: Sequence[Ids],
    replies: Sequence[Ids],
    first: Sequence[NDArray[np.int64]],
    answered: Said,
    answers: Sequence[tuple[str, bool]],
    quantized: Sequence[NDArray[np.float32]],
) -> tuple[Probe, ...]:
    """One value a pair; of all log-probabilities those of the tokens `first`."""
    return tuple(
        Probe(
            tuple(prompts[n]),
            tuple(replies[n]),
            tuple(first[n].tolist()),
            _rounded(answered[0][n][first[n]]),
            _rounded(answered[1][n][first[n]]),
            answered[2][n],
            _rounded(quantized[n][first[n]]),
            *answers[n],
        )
        for n in range(len(prompts))
    )


def facts(model: Any, tokenizer: Any, *, lora: str, base: str, base_digest: str, adapter: Path) -> Facts:
    """What a loaded model is, read from the model and the tokenizer themselves and from the adapter's file."""
    config = getattr(model.config, "quantization_config", None)
    template = tokenizer.chat_template
    return Facts(
        base=base,
        base_digest=base_digest,
        weights=_file_digest(adapter / WEIGHTS),
        lora=lora,
        template=digest(template) if template else "none",
        tokenizer=digest(tokenizer.get_vocab(), sorted(tokenizer.all_special_tokens)),
        end=int(tokenizer.eos_token_id),
        dtype=str(getattr(config, "bnb_4bit_compute_dtype", model.dtype)).removeprefix("torch."),
        quantization="none" if config is None else str(getattr(config, "bnb_4bit_quant_type", config)),
    )


def _lora(model: Any) -> str:
    """Rank, alpha, the factor that is really applied, and where; a bare base has none of it."""
    config = model.peft_config["default"]
    layers = [module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")]
    factors = ", ".join(f"{factor:g}" for factor in sorted(set(layers)))
    where = ", ".join(sorted({name.rpartition(".")[2] for name in config.target_modules}))
    return f"rank {config.r}, alpha {config.lora_alpha}, factor {factors} in {len(layers)} layers ({where})"


def _whole(model: Any, base: Path, dtype: str) -> Any:
    """The adapter that is in memory, on the base as it is served."""
    bare = AutoModelForCausalLM.from_pretrained(str(base), dtype=getattr(torch, dtype), use_safetensors=True)
    whole = get_peft_model(bare.to(model.device), copy.deepcopy(model.peft_config["default"]))
    set_peft_model_state_dict(whole, get_peft_model_state_dict(model, save_embedding_layers=False))
    return whole.eval()


def _read(model: Any, prompt: Ids, reply: Ids) -> NDArray[np.float32]:
    """Log-probabilities of the next token after the prompt and after each token of the reply, the last one aside."""
    ids = torch.tensor([[*prompt, *reply[:-1]]], device=model.device)
    logits = model(input_ids=ids, logits_to_keep=max(1, len(reply))).logits[0]
    rows: NDArray[np.float32] = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
    return rows


def _begun(tokenizer: Any, reply: Ids, choices: Ids) -> tuple[str, bool]:
    """The greedy answer as far as it is known: while it is the reply, and one token more."""
    known: list[int] = []
    for given, chosen in zip(reply, choices, strict=True):
        known.append(chosen)
        if given != chosen or chosen == tokenizer.eos_token_id:
            break
    text, ended = tokenizer.decode(known, skip_special_tokens=True).strip(), known[-1] == tokenizer.eos_token_id
    return (text, True) if ended else (text.rstrip("\N{REPLACEMENT CHARACTER}"), False)  # it broke off in a character


@contextmanager
def _asked(model: Any) -> Iterator[None]:
    """Without dropout; in bf16 where the model was trained under autocast, which a GPU is; with serving's attention.

    Two attention kernels in bf16 are further apart than a fault that parity is to find.
    """
    training, half = (
        model.training,
        torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
    )
    attention = model.config._attn_implementation
    model.eval()
    if attention == FLASH:
        model.set_attn_implementation("sdpa")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            yield
    finally:
        if attention == FLASH:
            model.set_attn_implementation(FLASH)
        model.train(training)


def _rounded(values: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _file_digest(file: Path) -> str:
    if not file.is_file():
        return "none"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
