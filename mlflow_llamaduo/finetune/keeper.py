"""What is kept of a training while it goes on: the best adapter, the checkpoints, and the driver's knowledge of it.

checkpoint/
job.json    whose it is, and the seconds of training before it
state/      adapter, optimizer, scheduler, random states, trainer state (transformers' own format)
best/       the adapter of the epoch with the least dev loss so far
"""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import ray.train
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.files import remove
from mlflow_llamaduo.finetune.sft import AdapterTrainer, save_adapter


class Keeper(TrainerCallback):
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

    def resumed(self) -> Path | None:
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
        return folder / "state"

    def over(self, state: Path) -> bool:
        """Whether the training had stopped early when `state` was saved: transformers would train on from there."""
        saved = TrainerState.load_from_json(str(state / "trainer_state.json"))
        if self.trainer is None or not self._impatient(saved.log_history):
            return False
        self.trainer.state, self._history = saved, saved.log_history
        self._evaluated = sum(entry.get("eval_runtime", 0.0) for entry in saved.log_history)
        return True

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
        if _since_best(state.log_history) == 0 and state.is_world_process_zero and self.trainer is not None:
            remove(self.best)
            save_adapter(self.trainer, self.best, base_model=self._base_model)
        if self._impatient(state.log_history):
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

    def _impatient(self, history: list[dict[str, float]]) -> bool:
        return 0 < self._recipe.patience <= _since_best(history)

    def _seconds(self) -> float:
        evaluated = sum(entry.get("eval_runtime", 0.0) for entry in self._history) - self._evaluated
        return self._before + time.monotonic() - self._began - evaluated


def _held(loss: float) -> float:
    """A loss that is no number is worse than any: compared as it is, no later epoch would be better."""
    return math.inf if math.isnan(loss) else loss


def _since_best(history: list[dict[str, float]]) -> int:
    """Epochs since the one with the least dev loss."""
    dev = [_held(entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    return len(dev) - 1 - dev.index(min(dev)) if dev else 0
