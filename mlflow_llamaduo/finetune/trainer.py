"""Run the QLoRA recipe as a Ray Train job and bring the adapter home."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from math import ceil
from pathlib import Path
from typing import Any

import ray

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.core.records import Adapter, EpochLoss, Pair, PairSet
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.files import folder_atomic, folder_digest, remove
from mlflow_llamaduo.quiet import hush


def finetune(
    train: PairSet,
    dev: PairSet,
    *,
    base: BaseModelFolder,
    recipe: FineTune,
    target: Path,
    done: Callable[[int], object],
) -> Adapter:
    """Train an adapter from the base on `train`; the epoch with the least loss on `dev` is kept.

    Args:
        train: pairs to learn; the loss counts their response tokens only.
        dev: pairs that choose the epoch.
        base: the base model's folder.
        recipe: rank, learning rate, epochs and the rest.
        target: the folder that will hold the adapter; it appears whole or not at all.
        done: told the number of optimizer steps whenever some have ended.

    Raises:
        StageError: the job failed; the cause is the worker's own error.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    counter = ray.remote(num_cpus=0)(_Counter).remote()
    storage = target.parent / f".{target.name}.job"
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "base_model": base.name,
            "base_path": str(base.path),
            "counter": counter,
            "recipe": recipe.model_dump(),
            "train": [_example(pair) for pair in train],
            "dev": [_example(pair) for pair in dev],
        },
        scaling_config=ScalingConfig(
            num_workers=recipe.workers,
            use_gpu=recipe.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": recipe.cpus_per_worker,
                **({"GPU": recipe.gpus_per_worker} if recipe.gpus_per_worker else {}),
            },
        ),
        run_config=RunConfig(
            name="finetune",
            storage_path=str(storage.absolute()),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    remove(storage)  # of a job that died: Ray Train would take it for its own and resume half a state
    try:
        result = _followed(trainer.fit, counter, done)
    except TrainingFailedError as error:
        raise StageError(f"fine-tuning {base.name} failed: {_last_line(error)}") from error
    if result.checkpoint is None or result.metrics is None:
        raise StageError(f"fine-tuning {base.name} ended without an adapter: see Ray's log under {storage}")
    with result.checkpoint.as_directory() as trained, folder_atomic(target) as part:
        shutil.copytree(trained, part, dirs_exist_ok=True)
    remove(storage)
    return _adapter(target, base, result.metrics)


def optimizer_steps(rows: int, recipe: FineTune) -> int:
    """How many steps a training of all epochs takes."""
    batches = ceil(rows / (recipe.batch_size * recipe.workers))
    return ceil(batches / recipe.gradient_accumulation) * recipe.epochs


class _Counter:
    """A Ray actor between the workers, who step, and the driver, who shows it."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self) -> None:
        self._steps += 1

    def read(self) -> int:
        return self._steps


def _followed(fit: Callable[[], Any], counter: Any, done: Callable[[int], object]) -> Any:
    """What `fit` returns, with the counter's steps passed on to `done` meanwhile.

    It runs in a thread of its own: in the main one Ray Train 2.60 takes SIGINT for itself and never gives it back,
    so that Ctrl-C would end the process behind our back, even long after the training.
    """
    thread = ThreadPoolExecutor(max_workers=1)
    running = thread.submit(fit)
    shown = 0
    try:
        while wait([running], timeout=0.5).not_done:
            steps = ray.get(counter.read.remote())
            done(steps - shown)
            shown = steps
        return running.result()
    finally:
        thread.shutdown(wait=False)
        ray.kill(counter)


def _work(job: dict[str, Any]) -> None:
    """Runs on the workers: only they import torch, trl and peft."""
    hush()
    from mlflow_llamaduo.finetune.worker import train_worker

    train_worker(job)


def _adapter(path: Path, base: BaseModelFolder, metrics: dict[str, Any]) -> Adapter:
    return Adapter(
        path=str(path),
        digest=folder_digest(path),
        base_model=base.name,
        base_digest=base.digest,
        train_loss=float(metrics["train_loss"]),
        eval_loss=float(metrics["eval_loss"]),
        best_epoch=float(metrics["best_epoch"]),
        tokens=int(metrics["tokens"]),
        seconds=float(metrics["seconds"]),
        losses=tuple(EpochLoss(**loss) for loss in json.loads(metrics["losses"])),
    )


def _example(pair: Pair) -> dict[str, Any]:
    """Trl's conversational prompt-completion row."""
    return {
        "prompt": [{"role": m.role, "content": m.content} for m in pair.prompt],
        "completion": [{"role": "assistant", "content": pair.response}],
    }


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
