"""What one Ray Train worker does: QLoRA with trl and peft (paper, section 3.2 and appendix).

The base is quantized to 4-bit NF4 with double quantization, a LoRA adapter on all linear layers is trained on the
response tokens alone, the epoch with the least dev loss is kept, and the adapter is saved as safetensors with the
tokenizer and chat template it was trained with.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import ray.train
import torch
from datasets import Dataset
from peft import LoraConfig
from ray.train.huggingface.transformers import prepare_trainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from mlflow_llamaduo.config import FineTune


def train_worker(job: dict[str, Any]) -> None:
    """Train on this worker's share and report the adapter as a checkpoint.

    Args:
        job: `base_model` (name), `base_path`, `counter` (a Ray actor), `recipe` (a dumped `FineTune`), `train` and
            `dev` (lists of `{"prompt": [messages], "completion": [messages]}`).
    """
    recipe = FineTune(**job["recipe"])
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(job, recipe, scratch)
        lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
        trainer.train()
        history = trainer.state.log_history
        metrics = _metrics(history, tokens=sum(lengths) * recipe.epochs)
        adapter = Path(scratch) / "adapter"
        if ray.train.get_context().get_world_rank() == 0:
            _save(trainer, job["base_model"], adapter)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(adapter)))
        else:
            ray.train.report(metrics)


def _trainer(job: dict[str, Any], recipe: FineTune, scratch: str) -> SFTTrainer:
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    dtype = torch.bfloat16 if bf16 else torch.float32  # bf16 without hardware for it is 15 times slower
    tokenizer = AutoTokenizer.from_pretrained(job["base_path"])
    model = AutoModelForCausalLM.from_pretrained(
        job["base_path"],
        dtype=dtype,
        device_map={"": torch.cuda.current_device()} if cuda else "cpu",
        quantization_config=_quantization(dtype) if recipe.quantization == "nf4" else None,
    )
    arguments = SFTConfig(
        output_dir=scratch,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup,
        max_length=recipe.max_length,
        completion_only_loss=True,
        train_sampling_strategy="group_by_length",  # rows of like length: little padding
        # On CPU the activations of a small batch fit in memory; recomputing them would be work for nothing.
        activation_checkpointing=cuda,
        bf16=bf16,
        use_cpu=not cuda,
        seed=recipe.seed,
        data_seed=recipe.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        logging_strategy="epoch",
        disable_tqdm=True,
        report_to=[],
    )
    trainer = SFTTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list(job["train"]),
        eval_dataset=Dataset.from_list(job["dev"]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[_Steps(job["counter"])],
    )
    return prepare_trainer(trainer)


def _quantization(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _save(trainer: SFTTrainer, base_model: str, folder: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.peft_config["default"].base_model_name_or_path = base_model  # not the path it has on this machine
    model.save_pretrained(str(folder), safe_serialization=True)
    trainer.processing_class.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    _sort_sets(folder / "adapter_config.json")


def _sort_sets(config: Path) -> None:
    """Peft writes its sets in the order of the process: the same adapter would have another digest each time."""
    written = json.loads(config.read_text())
    for name in ("target_modules", "exclude_modules"):
        if isinstance(written.get(name), list):
            written[name].sort()
    config.write_text(json.dumps(written, indent=2, sort_keys=True))


def _metrics(history: list[dict[str, float]], *, tokens: int) -> dict[str, Any]:
    """Losses in nats per response token; seconds of training, evaluation not counted."""
    train = {entry["epoch"]: entry["loss"] for entry in history if "loss" in entry}
    dev = {entry["epoch"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    evaluation = sum(entry.get("eval_runtime", 0.0) for entry in history)
    total = next(entry for entry in reversed(history) if "train_runtime" in entry)
    best = min(dev, key=lambda epoch: dev[epoch])
    losses = [{"epoch": epoch, "train": train.get(epoch), "dev": loss} for epoch, loss in dev.items()]
    return {
        "train_loss": total["train_loss"],
        "eval_loss": dev[best],
        "best_epoch": best,
        "tokens": tokens,
        "seconds": max(total["train_runtime"] - evaluation, 1e-9),
        "losses": json.dumps(losses),
    }


class _Steps(TrainerCallback):
    """Tells the driver of every optimizer step, from rank 0."""

    def __init__(self, counter: Any) -> None:
        self._counter = counter

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._counter.step.remote()
