"""Training speed in real tokens a second: bare trl, ours, and a loop that does nothing but train.

All three train the same adapter on the same rows of closed_qa from the same seed, one epoch with the same batches of
rows, learning rate and schedule, each in a process of its own, by turns; the best of two turns counts. The dev loss
is taken by one function for all. Bare trl has its defaults but for `bf16`, which a CPU cannot do at speed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.row import Row, of_turns

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
COVERAGE = Path(__file__).parents[1] / "projects" / "closed_qa" / "coverage.jsonl"
TRAIN, DEV, TURNS = 32, 12, 2
RECIPE = {"lora_rank": 16, "lora_alpha": 32, "learning_rate": 5e-4, "epochs": 1, "batch_size": 4}


def measure() -> Iterator[Row]:
    """Tokens a second and dev loss of each."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(TURNS):
        for name, results in found.items():
            command = [sys.executable, "-m", "benchmarks.finetune", name]
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for name, unit, key, best in (
        ("real tokens trained", "a second", "tokens_per_second", max),
        ("dev loss after one epoch", "nats", "dev_loss", median),
        ("memory of a training process", "MB", "peak_mb", min),
    ):
        ours, theirs, bound = ([result[key] for result in found[contender]] for contender in ("ours", "trl", "loop"))
        yield of_turns(name, unit, ours, ("bare trl", theirs), ("hand-written loop", bound), best)


def _ours(folder: Path) -> tuple[Any, Callable[[], None]]:
    from mlflow_llamaduo.config import FineTune
    from mlflow_llamaduo.finetune.sft import AdapterTrainer, load_base

    tokenizer, rows = _rows()
    recipe = FineTune(**RECIPE, gradient_accumulation=1)
    base = load_base(_base(), quantization="nf4")
    trainer = AdapterTrainer(base, tokenizer, rows.train, rows.dev, recipe=recipe, folder=folder)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    return trainer.model, trainer.train


def _trl(folder: Path) -> tuple[Any, Callable[[], None]]:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from mlflow_llamaduo.finetune.sft import load_base

    tokenizer, _ = _rows()
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=RECIPE["batch_size"],
        num_train_epochs=RECIPE["epochs"],
        learning_rate=RECIPE["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        save_strategy="no",
        bf16=False,
        report_to=[],
        disable_tqdm=True,
    )
    data = [
        {"prompt": p["prompt"], "completion": [{"role": "assistant", "content": p["response"]}]} for p in _pairs()
    ]
    trainer = SFTTrainer(
        load_base(_base(), quantization="nf4"),
        args=arguments,
        train_dataset=Dataset.from_list(data[:TRAIN]),
        processing_class=tokenizer,
        peft_config=lora,
    )
    return trainer.model, trainer.train


def _loop(folder: Path) -> tuple[Any, Callable[[], None]]:
    """What the machine can do: rows side by side, the head where something is learned, AdamW, and nothing else."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import get_cosine_schedule_with_warmup, set_seed

    from mlflow_llamaduo.finetune.sft import laid_out, load_base

    _, rows = _rows()
    set_seed(42)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_base(_base(), quantization="nf4"), lora).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=float(RECIPE["learning_rate"]))
    size = int(RECIPE["batch_size"])
    order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(42)).tolist()
    schedule = get_cosine_schedule_with_warmup(optimizer, 1, TRAIN // size)
    base = model.get_base_model()

    def train() -> None:
        for start in range(0, TRAIN, size):
            batch = laid_out(rows.train, order[start : start + size])
            hidden = base.model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
            labels = batch["labels"][0, 1:]
            learned = labels != -100
            logits = base.lm_head(hidden.last_hidden_state[0, :-1][learned])
            loss: Any = torch.nn.functional.cross_entropy(logits, labels[learned])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    return model, train


CONTENDERS = {"trl": _trl, "ours": _ours, "loop": _loop}


def _pairs() -> list[dict[str, Any]]:
    lines = COVERAGE.read_text().splitlines()[: TRAIN + DEV]
    messages = [json.loads(line)["messages"] for line in lines]
    return [{"prompt": turns[:-1], "response": turns[-1]["content"]} for turns in messages]


def _rows() -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    from mlflow_llamaduo.chat_template import with_template
    from mlflow_llamaduo.finetune.token_rows import tokenized

    tokenizer = with_template(AutoTokenizer.from_pretrained(_base()), "own")
    pairs = _pairs()
    return tokenizer, tokenized(tokenizer, pairs[:TRAIN], pairs[TRAIN:], max_length=1024, too_long="reject")


def _base() -> str:
    from mlflow_llamaduo.base_models import resolve

    return str(resolve(MODEL).path)


def _dev_loss(model: Any) -> float:
    """Nats per learned token of the dev rows."""
    import torch

    from mlflow_llamaduo.finetune.sft import laid_out

    _, rows = _rows()
    model.eval()
    total = learned = 0.0
    for place in range(len(rows.dev)):
        batch = laid_out(rows.dev, [place])
        labels = batch["labels"][0, 1:]
        with torch.no_grad():
            logits = model(batch["input_ids"]).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        learned += int((labels != -100).sum())
    return total / learned


def _run(name: str) -> dict[str, float]:
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        model, train = CONTENDERS[name](Path(folder))
        before = psutil.Process().memory_info().rss
        began = time.perf_counter()
        train()
        seconds = time.perf_counter() - began
        peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    _, rows = _rows()
    return {
        "tokens_per_second": rows.train.tokens / seconds,
        "dev_loss": _dev_loss(model),
        "peak_mb": (peak - before) / 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1])))
