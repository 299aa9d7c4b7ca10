"""Supervised fine-tuning of one adapter with trl and peft (paper, section 3.2 and appendix), in one process or many.

The base is quantized to 4-bit NF4 with double quantization and a LoRA adapter on all linear layers is trained on the
response tokens alone. The rows of a batch are laid one behind the other, each attending to itself only, so nothing is
padded; the LM head runs where there is something to learn, and nowhere else. What that brings: benchmarks/README.md.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
from transformers.utils import is_flash_attn_2_available
from trl import SFTConfig, SFTTrainer

from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.finetune.token_rows import TokenRows

IGNORED = -100


def load_base(path: str, *, quantization: str) -> Any:
    """The base model for training: NF4 or as it is, in bf16 where the hardware has it, else in float32."""
    cuda = torch.cuda.is_available()
    # bf16 without hardware for it is 15 times slower than float32
    dtype = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    base = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=dtype,
        device_map={"": torch.cuda.current_device()} if cuda else "cpu",
        quantization_config=nf4 if quantization == "nf4" else None,
        use_safetensors=True,
        # Rows that lie one behind the other want a kernel that knows where each ends, or a mask.
        attn_implementation="flash_attention_2" if cuda and is_flash_attn_2_available() else None,
    )
    for layer in base.modules():
        if isinstance(layer, Linear4bit):
            # In eval mode bitsandbytes 0.50 packs the weights anew for a kernel of CPUs with AVX512-BF16, and leaves
            # them so: a training that goes on from there has no gradient through them, and nobody says so.
            layer.support_avx512bf16_for_cpu = False
    return base


def reads_rows_apart(base: Any) -> bool:
    """Whether rows of a batch that are laid one behind the other are each read as if alone.

    Attention with a mask, or with positions that begin anew, does. Layers with a state (Mamba, linear attention or
    convolution) carry it over from row to row, and OPT counts its positions itself: losses would be silently wrong.
    """
    words = min(base.config.get_text_config().vocab_size, 1000)
    row, one, other = ([(start + 5 * place) % words for place in range(32)] for start in (3, 101, 211))
    was, _ = base.training, base.eval()
    with torch.no_grad():
        alone, behind, elsewhere = (_last_row(base, rows) for rows in ([row], [one, row], [other, row]))
    base.train(was)
    spread = float(alone.std())
    return (
        float((behind - elsewhere).abs().max()) < 1e-3 * spread
        and float((behind - alone).abs().mean()) < 0.05 * spread
    )


def _last_row(base: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the last of some rows that lie one behind the other: [tokens, vocabulary]."""
    ids = torch.tensor([[token for row in rows for token in row]], device=base.device)
    positions = torch.tensor([[place for row in rows for place in range(len(row))]], device=base.device)
    found = base(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=len(rows[-1]))
    logits: torch.Tensor = found.logits[0, -len(rows[-1]) :].float()
    return logits


class AdapterTrainer(SFTTrainer):
    """Trl's trainer over rows that are tokens already, with batches that hold no padding."""

    control: Any

    def __init__(
        self,
        base: Any,
        tokenizer: Any,
        train: TokenRows,
        dev: TokenRows,
        *,
        recipe: FineTune,
        folder: Path,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self._rows = train
        self._dev = dev
        super().__init__(
            base,
            args=_arguments(recipe, folder),
            train_dataset=Dataset.from_dict({"row": range(len(train))}),
            eval_dataset=Dataset.from_dict({"row": range(len(dev))}),
            data_collator=self._laid_out,
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=recipe.lora_rank,
                lora_alpha=recipe.lora_alpha,
                lora_dropout=recipe.lora_dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=list(callbacks),
        )
        for weight in self.model.parameters():
            if weight.requires_grad:  # trl makes them bf16 on a quantized base; AdamW's small steps are lost in that
                weight.data = weight.data.float()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss of the learned tokens of all ranks and accumulated batches, in nats.

        On CUDA trl's own: its kernel scores the learned positions alone, in tiles. Elsewhere that kernel scores every
        position, with entropy and accuracy besides, which costs as much as half of the model.
        """
        if torch.cuda.is_available():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        total, learned = _summed_loss(model, inputs)
        loss = total / (learned if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages the ranks' gradients
        return (loss, None) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The mean loss of all learned dev tokens, each counted once whatever the batches and ranks."""
        began = time.monotonic()
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        size = self.args.per_device_eval_batch_size
        own = range(rank, len(self._dev), ranks)
        sums = torch.zeros(2, dtype=torch.float64)
        self.model.eval()
        for start in range(0, len(own), size):
            batch = self._prepare_inputs(laid_out(self._dev, own[start : start + size]))
            with torch.no_grad(), self.compute_loss_context_manager():
                total, learned = _summed_loss(self.model, batch)
            sums += torch.tensor([float(total), learned], dtype=torch.float64)
        total, learned = self.accelerator.reduce(sums.float().to(self.args.device), reduction="sum").tolist()
        self.model.train()
        metrics = {"eval_loss": total / learned, "eval_runtime": time.monotonic() - began}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _laid_out(self, batch: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        return laid_out(self._rows, [item["row"] for item in batch])


def laid_out(rows: TokenRows, places: Sequence[int]) -> dict[str, torch.Tensor]:
    """Some rows as one: ids, positions that begin anew with each row, labels; all of shape [1, tokens]."""
    parts = [rows.row(place) for place in places]
    ids = [torch.from_numpy(part.copy()) for part, _ in parts]
    labels = [part.clone() for part in ids]
    for part, (_, prompt) in zip(labels, parts, strict=True):
        part[:prompt] = IGNORED
    return {
        "input_ids": torch.cat(ids)[None],
        "position_ids": torch.cat([torch.arange(len(part)) for part in ids])[None],
        "labels": torch.cat(labels)[None],
    }


def save_adapter(trainer: AdapterTrainer, folder: Path, *, base_model: str) -> None:
    """The adapter as safetensors with its tokenizer and template; the same adapter gives the same files."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = model.peft_config["default"]
    path, config.base_model_name_or_path = config.base_model_name_or_path, base_model  # not this machine's path
    model.save_pretrained(str(folder), safe_serialization=True)
    config.base_model_name_or_path = path
    trainer.processing_class.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    _sort_sets(folder / "adapter_config.json")


def load_adapter(trainer: AdapterTrainer, folder: Path) -> Any:
    """The model that was trained, with the weights of a saved adapter in it."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    return model


def _arguments(recipe: FineTune, folder: Path) -> SFTConfig:
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        shuffle_dataset=False,  # the sampler does, from the seed
        # On CPU the activations of a small batch fit in memory; recomputing them would be work for nothing.
        gradient_checkpointing=cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(including_emulation=False),
        use_cpu=not cuda,
        ddp_find_unused_parameters=False,
        seed=recipe.seed,
        data_seed=recipe.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        disable_tqdm=True,
        report_to=[],
    )


def _summed_loss(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """The summed loss of the learned tokens, in nats, and their number; the head runs before these tokens only."""
    labels = inputs["labels"][0, 1:]
    learned = (labels != IGNORED).nonzero()[:, 0]
    logits = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        use_cache=False,
        logits_to_keep=learned,
    ).logits[0]
    return cross_entropy(logits.float(), labels[learned], reduction="sum"), len(learned)


def _sort_sets(config: Path) -> None:
    """Peft writes its sets in the order of the process: the same adapter would have another digest each time."""
    written = json.loads(config.read_text())
    for name in ("target_modules", "exclude_modules"):
        if isinstance(written.get(name), list):
            written[name].sort()
    config.write_text(json.dumps(written, indent=2, sort_keys=True))
