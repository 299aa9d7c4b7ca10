"""What one Ray Train worker does: one fine-tuning after the other, each with checkpoints that it can go on from.

The worker stays for the next round's job with its base loaded, where the driver lets it.
"""

import ctypes
import gc
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.collective import broadcast_from_rank_zero
from transformers import AutoTokenizer

from mlflow_llamaduo.base_models import BaseModelFolder, at_hand
from mlflow_llamaduo.chat_template import with_template
from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.core.parity import PROBES
from mlflow_llamaduo.errors import BaseModelError, LlamaDuoError
from mlflow_llamaduo.files import packed
from mlflow_llamaduo.finetune.keeper import Keeper
from mlflow_llamaduo.finetune.line import Job, Trained
from mlflow_llamaduo.finetune.sft import AdapterTrainer, load_adapter, load_base, reads_rows_apart
from mlflow_llamaduo.finetune.token_rows import Tokenized, encoded, tokenized
from mlflow_llamaduo.finetune.tokens import Row, mask_report
from mlflow_llamaduo.probe import as_trained, write


def train_worker(config: dict[str, Any]) -> None:
    """Work on the jobs of a `Line` until it is closed.

    Args:
        config: `line` (its actor), `quantization`, `base_model`, `base_digest`, `base_path` (the driver's).
    """
    line = config["line"]
    worker = _Worker(config)
    number = ray.get(line.first_open.remote())
    while (job := ray.get(line.job.remote(number))) is not None:
        if not worker.train(number, job):
            return
        number += 1


class _Worker:
    """A base model, kept from job to job."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._line = config["line"]
        self._name = config["base_model"]
        self._path = at_hand(self._name, config["base_digest"], config["base_path"])
        self._folder = BaseModelFolder(self._name, self._path, config["base_digest"], "")
        self._first = ray.train.get_context().get_world_rank() == 0
        self._base = load_base(str(self._path), quantization=config["quantization"])
        self._apart = not self._first or reads_rows_apart(self._base)

    def train(self, number: int, job: Job) -> bool:
        """Train one adapter and hand it over; False if that cannot be done."""
        recipe = FineTune(**job.recipe)
        tokenizer, rows = self._rows(number, job, recipe)
        if rows is None:
            return False
        with tempfile.TemporaryDirectory() as scratch:
            keeper = Keeper(job.key, Path(scratch), self._name, self._line, recipe)
            trainer = AdapterTrainer(
                self._base,
                tokenizer,
                rows.train,
                rows.dev,
                recipe=recipe,
                folder=Path(scratch) / "trainer",
                callbacks=[keeper],
            )
            keeper.trainer = trainer
            resumed = keeper.resumed()
            if resumed is None or not keeper.over(resumed):
                trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
            if self._first:
                metrics = {**keeper.metrics(), "tokens": round(rows.train.tokens * trainer.state.epoch)}
                probed = self._probe(trainer, tokenizer, job, keeper.best)
                mask = mask_report(tokenizer, rows.first)
                trained = Trained(packed(keeper.best), metrics, mask, probed)
                ray.get(self._line.finish.remote(number, trained))
            self._unload(trainer)
        return True

    def _rows(self, number: int, job: Job, recipe: FineTune) -> tuple[Any, Tokenized | None]:
        """Tokenized by the first worker, read by all from shared memory."""
        tokenizer = AutoTokenizer.from_pretrained(self._path)
        found = None
        try:
            if not self._apart:
                raise BaseModelError(
                    f"{self._name} ({self._base.config.model_type}) reads rows that lie one behind the other as one, "
                    "so that its losses would be wrong: take a base_model with attention layers alone, such as "
                    "Llama's, Qwen3's, Gemma's or Mistral's"
                )
            with_template(tokenizer, recipe.chat_template)
            if self._first:
                train, dev = ray.get([job.train, job.dev])
                rows = tokenized(tokenizer, train, dev, max_length=recipe.max_length, too_long=recipe.too_long)
                for said in rows.said:
                    self._line.say.remote(said)
                found = [ray.put(rows)]
        except LlamaDuoError as error:
            if self._first:
                ray.get(self._line.refuse.remote(number, str(error)))
        found = broadcast_from_rank_zero(found)
        return tokenizer, None if found is None else ray.get(found[0])

    def _probe(self, trainer: AdapterTrainer, tokenizer: Any, job: Job, best: Path) -> tuple[str, ...]:
        """What the best adapter says in this model, as it was trained: what serving will be held against.

        Returns:
            the ids of the dev pairs that it was asked: the first ones whose roles the template takes.
        """
        model = load_adapter(trainer, best)
        _give_back()
        found = ((pair["id"], encoded(tokenizer, pair, sys.maxsize, "reject")) for pair in ray.get(job.dev))
        rows = dict(islice(((name, row) for name, row in found if isinstance(row, Row)), PROBES))
        split = [(row.ids[: row.prompt], row.ids[row.prompt :]) for row in rows.values()]
        write(best, as_trained(model, tokenizer, split, base=self._folder, adapter=best))
        return tuple(rows)

    def _unload(self, trainer: AdapterTrainer) -> None:
        """The bare base again: without the adapter, and without the forward that trl puts in the model's place."""
        self._base = trainer.accelerator.unwrap_model(trainer.model).unload()
        self._base.__dict__.pop("forward", None)


def _give_back() -> None:
    """What the training has freed, to the system: glibc keeps it, and a whole base is about to be loaded."""
    gc.collect()
    torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
