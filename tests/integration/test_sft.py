"""What a batch holds, what its loss is, and what is kept of a training: in this process, on a tiny model."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mlflow_llamaduo.chat_template import with_template
from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.core.records import PairSet
from mlflow_llamaduo.finetune.keeper import Keeper
from mlflow_llamaduo.finetune.sft import IGNORED, AdapterTrainer, laid_out, load_base, reads_rows_apart
from mlflow_llamaduo.finetune.token_rows import Tokenized, TokenRows, tokenized
from mlflow_llamaduo.finetune.tokens import Row
from tests.tiny import tiny_base, tiny_pairs

RECIPE = FineTune(
    lora_rank=4,
    lora_alpha=8,
    learning_rate=5e-3,
    epochs=4,
    batch_size=4,
    gradient_accumulation=2,
    quantization="none",
    gpus_per_worker=0,
    max_length=256,
    patience=0,
    warmup=0,
)
SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base")).path


@pytest.fixture(scope="module")
def rows(base: Path) -> Tokenized:
    def examples(pairs: PairSet) -> list[dict[str, Any]]:
        return [
            {"prompt": [{"role": m.role, "content": m.content} for m in p.prompt], "response": p.response}
            for p in pairs
        ]

    train, dev = examples(tiny_pairs(32)), examples(tiny_pairs(8, start=100))
    return tokenized(tokenizer(base), train, dev, max_length=256, too_long="reject")


def tokenizer(base: Path) -> Any:
    return with_template(AutoTokenizer.from_pretrained(base), "own")


def test_rows_lie_one_behind_the_other_and_only_responses_are_learned() -> None:
    batch = laid_out(TokenRows.of([Row((5, 6, 7), 2), Row((8, 9, 10, 11), 1)]), [1, 0])
    assert batch["input_ids"].tolist() == [[8, 9, 10, 11, 5, 6, 7]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch["labels"].tolist() == [[IGNORED, 9, 10, 11, IGNORED, IGNORED, 7]]


def test_the_loss_of_a_batch_is_that_of_its_rows_in_plain_transformers(
    base: Path, rows: Tokenized, tmp_path: Path
) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    lost, learned = 0.0, 0
    for place in (3, 7, 8, 12):
        ids, prompt = rows.train.row(place)
        with torch.no_grad():
            logits = plain(torch.from_numpy(ids.copy())[None]).logits[0]
        lost += float(cross_entropy(logits[prompt - 1 : -1], torch.from_numpy(ids[prompt:].copy()), reduction="sum"))
        learned += len(ids) - prompt
    trainer = AdapterTrainer(
        load_base(str(base), quantization="none"),
        tokenizer(base),
        rows.train,
        rows.dev,
        recipe=RECIPE,
        folder=tmp_path / "trainer",
    )
    batch = laid_out(rows.train, [3, 7, 8, 12])
    alone, of_more = (
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=items).item() for items in (None, 50)
    )
    assert alone == pytest.approx(lost / learned, rel=1e-5)
    assert of_more == pytest.approx(lost / 50, rel=1e-5)


APART: dict[str, dict[str, Any]] = {
    "llama": {**SMALL, "num_key_value_heads": 2},
    "mistral": {**SMALL, "num_key_value_heads": 2, "sliding_window": 8},
    "gemma2": {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8},
    "gpt2": {"vocab_size": 97, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4},
}
TOGETHER: dict[str, dict[str, Any]] = {
    "opt": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "lfm2": {**SMALL, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    "mamba": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}


@pytest.mark.parametrize(
    ("kind", "apart"), [*((kind, True) for kind in APART), *((kind, False) for kind in TOGETHER)]
)
def test_architectures_that_carry_over_from_row_to_row_are_found(kind: str, apart: bool) -> None:
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **(APART | TOGETHER)[kind], initializer_range=0.3, pad_token_id=2)
    model = AutoModelForCausalLM.from_config(config).train()
    assert reads_rows_apart(model) is apart
    assert model.training, "the model is left as it was"


@dataclass
class Saved:
    """Stands for Ray's checkpoint: a folder."""

    path: str

    @classmethod
    def from_directory(cls, path: str) -> "Saved":
        return cls(path)

    def to_directory(self, path: str) -> str:
        return shutil.copytree(self.path, path)


@pytest.fixture
def train(
    base: Path, rows: Tokenized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Keeper, Any]]:
    """One training in this process, from a checkpoint if given; the checkpoints are kept in `tmp_path/saved`."""
    saved = tmp_path / "saved"
    saved.mkdir()
    monkeypatch.setattr(ray.train, "Checkpoint", Saved)

    def report(metrics: dict[str, int], *, checkpoint: Saved) -> None:
        shutil.copytree(checkpoint.path, saved / f"{metrics['step']:03d}", dirs_exist_ok=True)

    monkeypatch.setattr(ray.train, "report", report)
    lives: list[Path] = []

    def make(checkpoint: Path | None = None, **changed: Any) -> tuple[Keeper, Any]:
        monkeypatch.setattr(ray.train, "get_checkpoint", lambda: Saved(str(checkpoint)) if checkpoint else None)
        recipe = RECIPE.model_copy(update=changed)
        scratch = tmp_path / f"life-{len(lives)}"
        scratch.mkdir()
        lives.append(scratch)
        line = SimpleNamespace(step=SimpleNamespace(remote=lambda _: None))
        keeper = Keeper("job", scratch, "base", line, recipe)
        trainer = AdapterTrainer(
            load_base(str(base), quantization="none"),
            tokenizer(base),
            rows.train,
            rows.dev,
            recipe=recipe,
            folder=scratch / "trainer",
            callbacks=[keeper],
        )
        keeper.trainer = trainer
        resumed = keeper.resumed()
        if resumed is None or not keeper.over(resumed):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        return keeper, trainer

    return make


def told(keeper: Keeper) -> dict[str, Any]:
    """What came of it, but for the seconds."""
    return {name: value for name, value in keeper.metrics().items() if name != "seconds"}


def test_the_learning_rate_falls_along_a_cosine(train: Callable[..., tuple[Keeper, Any]]) -> None:
    _, trainer = train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    # As they are before each epoch's last step, of 16 in all.
    cosine = [
        RECIPE.learning_rate * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (4 * n - 1) / 16))) for n in (1, 2, 3, 4)
    ]
    assert rates == pytest.approx([float(rate) for rate in cosine], rel=1e-4)


def test_a_training_that_stopped_early_is_over_wherever_its_worker_died(
    train: Callable[..., tuple[Keeper, Any]], tmp_path: Path
) -> None:
    """Died after its last checkpoint, before the adapter was handed over."""
    hasty = {"patience": 1, "epochs": 8, "learning_rate": 5.0}
    keeper, _ = train(**hasty)
    undisturbed = told(keeper)
    assert len(undisturbed["losses"]) < 8, "it never stopped early"
    checkpoints = sorted((tmp_path / "saved").iterdir())
    for checkpoint in checkpoints:
        kept = shutil.copytree(checkpoint, tmp_path / "kept", dirs_exist_ok=True)
        again, _ = train(kept, **hasty)
        assert told(again) == undisturbed
        assert (again.best / "adapter_model.safetensors").read_bytes() == (
            keeper.best / "adapter_model.safetensors"
        ).read_bytes()
        shutil.rmtree(kept)
