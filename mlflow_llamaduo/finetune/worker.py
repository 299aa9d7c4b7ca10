"""What one Ray Train worker does: one fine-tuning after the other, each with checkpoints that it can go on from.

    checkpoint/
        job.json    whose it is, and the seconds of training before it
        state/      adapter, optimizer, scheduler, random states, trainer state (transformers' own format)
        best/       the adapter of the epoch with the least dev loss so far

The worker stays for the next round's job with its base loaded, where the driver lets it.
"""

import json
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.collective import broadcast_from_rank_zero
from transformers import AutoTokenizer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mlflow_llamaduo.base_models import BaseModelFolder, at_hand
from mlflow_llamaduo.chat_template import with_template
from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.errors import LlamaDuoError
from mlflow_llamaduo.files import packed, remove
from mlflow_llamaduo.finetune.line import Job, Trained
from mlflow_llamaduo.finetune.sft import AdapterTrainer, load_adapter, load_base, save_adapter
from mlflow_llamaduo.finetune.token_rows import Tokenized, tokenized
from mlflow_llamaduo.finetune.tokens import Row, encode, mask_report
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

    def train(self, number: int, job: Job) -> bool:
        """Train one adapter and hand it over; False if that cannot be done."""
        recipe = FineTune(**job.recipe)
        tokenizer, rows = self._rows(number, job, recipe)
        if rows is None:
            return False
        with tempfile.TemporaryDirectory() as scratch:
            keeper = _Keeper(job.key, Path(scratch), self._name, self._line, recipe)
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
            trainer.train(resume_from_checkpoint=keeper.resumed())
            if self._first:
                metrics = {**keeper.metrics(), "tokens": round(rows.train.tokens * trainer.state.epoch)}
                self._probe(trainer, tokenizer, job, keeper.best)
                mask = mask_report(tokenizer, rows.first)
                trained = Trained(packed(keeper.best), metrics, mask)
                ray.get(self._line.finish.remote(number, trained))
            self._unload(trainer)
        return True

    def _rows(self, number: int, job: Job, recipe: FineTune) -> tuple[Any, Tokenized | None]:
        """Tokenized by the first worker, read by all from shared memory."""
        tokenizer = AutoTokenizer.from_pretrained(self._path)
        found = None
        try:
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

    def _probe(self, trainer: AdapterTrainer, tokenizer: Any, job: Job, best: Path) -> None:
        """What the best adapter says in this model, as it was trained: what serving will be held against."""
        model = load_adapter(trainer, best)
        rows = [encode(tokenizer, **pair, max_length=sys.maxsize, too_long="reject") for pair in job.probes]
        split = [(row.ids[: row.prompt], row.ids[row.prompt :]) for row in rows if isinstance(row, Row)]
        write(best, as_trained(model, tokenizer, split, base=self._folder, adapter=best))

    def _unload(self, trainer: AdapterTrainer) -> None:
        """The bare base again: without the adapter, and without the forward that trl puts in the model's place."""
        self._base = trainer.accelerator.unwrap_model(trainer.model).unload()
        self._base.__dict__.pop("forward", None)


def _held(loss: float) -> float:
    """A loss that is no number is worse than any: compared as it is, no later epoch would be better."""
    return math.inf if math.isnan(loss) else loss


class _Keeper(TrainerCallback):
    """Keeps the best adapter and the checkpoints, tells the driver of every step, and stops when nothing improves."""

    def __init__(self, key: str, scratch: Path, base_model: str, line: Any, recipe: FineTune) -> None:
        self.trainer: AdapterTrainer | None = None
        self.best = scratch / "best"
        self._key = key
        self._scratch = scratch
        self._base_model = base_model
        self._line = line
        self._recipe = recipe
        self._before = 0.0
        self._began = time.monotonic()
        self._evaluated = 0.0
        self._history: list[dict[str, float]] = []

    def resumed(self) -> str | None:
        """The state to go on from, if the last checkpoint is this job's; its best adapter is taken over."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        folder = Path(checkpoint.to_directory(str(self._scratch / "resumed")))
        about = json.loads((folder / "job.json").read_text())
        if about["key"] != self._key:
            return None
        self._before = about["seconds"]
        if (folder / "best").is_dir():
            shutil.copytree(folder / "best", self.best)
        return str(folder / "state")

    def metrics(self) -> dict[str, Any]:
        """Losses in nats per learned token; seconds of training, evaluation not counted, in all lives of the job."""
        train = {entry["epoch"]: entry["loss"] for entry in self._history if "loss" in entry}
        dev = {entry["epoch"]: entry["eval_loss"] for entry in self._history if "eval_loss" in entry}
        best = min(dev, key=lambda epoch: _held(dev[epoch]))
        losses = [{"epoch": epoch, "train": train.get(epoch), "dev": loss} for epoch, loss in dev.items()]
        return {
            "train_loss": train[best],
            "eval_loss": dev[best],
            "best_epoch": best,
            "seconds": max(self._seconds(), 1e-9),
            "losses": losses,
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = time.monotonic()
        self._history = state.log_history
        self._evaluated = sum(entry.get("eval_runtime", 0.0) for entry in state.log_history)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._line.step.remote(state.global_step)
        every, epoch = self._recipe.checkpoint_steps, state.max_steps // self._recipe.epochs
        # What ends an epoch is saved after its dev loss is known: resumed before that, the epoch would have none.
        if every and state.global_step % every == 0 and state.global_step % epoch:
            control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._history = state.log_history
        dev = [_held(entry["eval_loss"]) for entry in state.log_history if "eval_loss" in entry]
        since = len(dev) - 1 - dev.index(min(dev))
        if since == 0 and state.is_world_process_zero and self.trainer is not None:
            remove(self.best)
            save_adapter(self.trainer, self.best, base_model=self._base_model)
        if self._recipe.patience and since >= self._recipe.patience:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Every rank reports what it wrote: Ray lays the folders together."""
        folder = self._scratch / "checkpoint"
        remove(folder)
        written = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        folder.mkdir()
        written.rename(folder / "state")
        (folder / "state" / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody reads
        if state.is_world_process_zero:
            (folder / "job.json").write_text(json.dumps({"key": self._key, "seconds": self._seconds()}))
            if self.best.is_dir():
                shutil.copytree(self.best, folder / "best")
        ray.train.report({"step": state.global_step}, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))

    def _seconds(self) -> float:
        evaluated = sum(entry.get("eval_runtime", 0.0) for entry in self._history) - self._evaluated
        return self._before + time.monotonic() - self._began - evaluated
