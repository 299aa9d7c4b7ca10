"""Ask the model that fine-tuning has in memory the probes of `core.parity`, and say by which facts it was trained.

The worker calls `trained` with the best adapter loaded, and `write` puts what it said beside the adapter. The served
side is asked by `mlflow_llamaduo.parity`, through what serving itself calls; `facts` reads both sides alike.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlflow_llamaduo.core.parity import PROBES_FILE, TOP, Facts, Probe, Probed
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.files import write_atomic

Chat = Sequence[dict[str, str]]

TOKENS = 16
"""Length of the greedy answers."""
WEIGHTS = "adapter_model.safetensors"


def trained(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    base: str,
    base_digest: str,
    adapter: Path,
) -> Probed:
    """What a model says as it was trained.

    Args:
        model: a PEFT model on its base, quantized or not; it is asked in eval mode and left as it was.
        tokenizer: the one that made the training rows.
        prompts: token ids of the first `core.parity.PROBES` dev prompts, as `chat_template.prompt_ids` makes them.
        base: the base model's name.
        base_digest: that of its folder.
        adapter: the folder that the adapter was saved in.
    """
    with _asked(model):
        on, answers = _say(model, tokenizer, prompts, TOKENS)
        with model.disable_adapter():
            off, _ = _say(model, tokenizer, prompts, 1)
    found = facts(model, tokenizer, base=base, base_digest=base_digest, adapter=adapter)
    chosen = [np.argsort(-row, kind="stable")[:TOP] for row in on]
    return Probed(found, probes(prompts, chosen, list(on), list(off), answers))


def write(folder: Path, probed: Probed) -> None:
    """Into `probes.json` of an adapter's folder; log-probabilities to 4 digits after the point."""
    write_atomic(folder / PROBES_FILE, json.dumps(asdict(probed)))


def probes(
    prompts: Sequence[Sequence[int]],
    chosen: Sequence[NDArray[np.int64]],
    on: Sequence[NDArray[np.float32]],
    off: Sequence[NDArray[np.float32]],
    answers: Sequence[tuple[str, int]],
) -> tuple[Probe, ...]:
    """One value a prompt, of the log-probabilities of all tokens and of the answers with their lengths."""
    return tuple(
        Probe(tuple(ids), tuple(top.tolist()), _rounded(with_[top]), _rounded(without[top]), text, length)
        for ids, top, with_, without, (text, length) in zip(prompts, chosen, on, off, answers, strict=True)
    )


def facts(model: Any, tokenizer: Any, *, base: str, base_digest: str, adapter: Path) -> Facts:
    """What a loaded model is, read from the model and the tokenizer themselves and from the adapter's file."""
    config = getattr(model.config, "quantization_config", None)
    template = tokenizer.chat_template
    return Facts(
        base=base,
        base_digest=base_digest,
        weights=_file_digest(adapter / WEIGHTS),
        lora=_lora(model),
        template=digest(template) if template else "none",
        tokenizer=digest(tokenizer.get_vocab(), sorted(tokenizer.all_special_tokens)),
        end=int(tokenizer.eos_token_id),
        dtype=str(getattr(config, "bnb_4bit_compute_dtype", model.dtype)).removeprefix("torch."),
        quantization="none" if config is None else str(getattr(config, "bnb_4bit_quant_type", config)),
    )


def _lora(model: Any) -> str:
    """Rank, alpha, the factor that is really applied, and where; a bare base has none of it."""
    config = getattr(model, "peft_config", {}).get("default")
    if config is None:
        return "no adapter"
    layers = [module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")]
    factors = ", ".join(f"{factor:g}" for factor in sorted(set(layers)))
    where = ", ".join(sorted({name.rpartition(".")[2] for name in config.target_modules}))
    return f"rank {config.r}, alpha {config.lora_alpha}, factor {factors} in {len(layers)} layers ({where})"


def _say(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], tokens: int
) -> tuple[NDArray[np.float32], list[tuple[str, int]]]:
    """Log-probabilities of each answer's first token [prompts, vocabulary], and the greedy answers.

    All prompts in one left-padded batch: a quantized base on a CPU is unpacked at every step.
    """
    width, end = max(map(len, prompts)), tokenizer.eos_token_id
    rows = [[end] * (width - len(ids)) + list(ids) for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    written = model.generate(
        input_ids=torch.tensor(rows, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=end,
        pad_token_id=end,
        output_logits=True,
        return_dict_in_generate=True,
    )
    first = torch.log_softmax(written.logits[0].float(), dim=-1).cpu().numpy()
    return first, [_answer(tokenizer, ids) for ids in written.sequences[:, width:].tolist()]


def _answer(tokenizer: Any, ids: list[int]) -> tuple[str, int]:
    """Up to the end token, which counts, as engines count it."""
    end = tokenizer.eos_token_id
    ids = ids[: ids.index(end) + 1] if end in ids else ids
    return tokenizer.decode(ids, skip_special_tokens=True).strip(), len(ids)


@contextmanager
def _asked(model: Any) -> Iterator[None]:
    """Without dropout and gradients; in bf16 where the model was trained under autocast, which a GPU is."""
    training, half = model.training, torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    model.eval()
    try:
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            yield
    finally:
        model.train(training)


def _rounded(values: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _file_digest(file: Path) -> str:
    if not file.is_file():
        return "none"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
