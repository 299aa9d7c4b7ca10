"""Ray Train's workers, ordered from the driver: a pair set goes out, an adapter comes home.

The workers are one Ray Train job, which is kept from round to round: starting them, importing what they need and
loading the base costs more than some trainings. Where inference wants their GPUs they are let go after each round.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from math import ceil
from pathlib import Path
from threading import Thread
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.core.parity import probe_order
from mlflow_llamaduo.core.records import Adapter, EpochLoss, Pair, PairSet
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.files import folder_atomic, folder_digest, remove, unpacked
from mlflow_llamaduo.finetune.line import Job, Line, Progress, Trained
from mlflow_llamaduo.finetune.room import Room
from mlflow_llamaduo.quiet import hush

POLL_S = 0.25
ENDS_WITHIN_S = 30.0


class TrainWorkers:
    """The workers of one alignment, from its first fine-tuning to `close`.

    Args:
        base: the base model's folder.
        recipe: workers, resources, storage and failures count here; the rest is each job's own.
        name: of the Ray Train run. A run of the same name in the same storage goes on from its last checkpoint.
        folder: where checkpoints lie if `finetune.storage` names no other place.
        beside: GPUs that inference will want.
    """

    def __init__(self, base: BaseModelFolder, recipe: FineTune, *, name: str, folder: Path, beside: int = 0) -> None:
        self._base = base
        self._recipe = recipe
        self._name = name
        self._folder = folder
        self._beside = beside
        self._line: Any = None
        self._fit: Future[Any] | None = None

    @property
    def stay(self) -> bool:
        """Whether the cluster has room for the workers and for inference side by side."""
        own = self._recipe.workers * self._recipe.gpus_per_worker
        return not own or bool(ray.cluster_resources().get("GPU", 0) >= own + self._beside)

    def finetune(
        self,
        train: PairSet,
        dev: PairSet,
        *,
        key: str,
        target: Path,
        done: Callable[[int], object],
        say: Callable[[str], None] = lambda _: None,
    ) -> Adapter:
        """Train an adapter from the base on `train`; the epoch with the least loss on `dev` is kept.

        Args:
            train: pairs to learn; the loss counts their response tokens only.
            dev: pairs that choose the epoch.
            key: names the job: after a crash the job of the same key goes on from its last checkpoint.
            target: the folder that will hold the adapter; it appears whole or not at all.
            done: told the number of optimizer steps whenever some have ended.
            say: told about rows that were shortened or left out.

        Raises:
            StageError: the job failed; the cause is the worker's own error.
        """
        fit = self.start()
        job = Job(
            key,
            self._recipe.at(len(train)).model_dump(),
            ray.put([_example(pair) for pair in train]),
            ray.put([_example(pair) for pair in probe_order(dev)]),
        )
        number = ray.get(self._line.put.remote(job))
        trained = self._followed(fit, number, done, say)
        with folder_atomic(target) as part:
            unpacked(trained.files, part)
        if not self.stay:
            self.close()
        return _adapter(target, self._base, trained)

    def close(self) -> None:
        """Let the workers go, and remove their checkpoints: what was ordered has come home."""
        fit, self._fit = self._fit, None
        if fit is None:
            return
        ray.get(self._line.close.remote())
        room = Room(self._recipe)
        while room.look() and not wait([fit], timeout=POLL_S).done:
            pass
        if not fit.done():  # it waits for a node, with nothing left to do
            for controller in ray.get(self._line.controllers.remote()):
                ray.kill(controller)
            wait([fit], timeout=ENDS_WITHIN_S)
        ray.kill(self._line)
        self.clear()

    def start(self) -> "Future[Any]":
        """Ray Train's job, in a thread of its own; started before the first fine-tuning it comes up meanwhile.

        In the main thread Ray Train 2.60 takes SIGINT for itself and never gives it back, so that Ctrl-C would end
        the process behind our back, even long after the training.
        """
        if self._fit is None:
            # With the driver: a node that is lost must not take with it what was ordered and what has come of it.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._line = ray.remote(num_cpus=0, scheduling_strategy=here)(Line).remote()
            self._fit = _beside(self._trainer().fit)
        return self._fit

    def _trainer(self) -> Any:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from mlflow_llamaduo.finetune.controller import Known

        recipe = self._recipe
        return TorchTrainer(
            _work,
            train_loop_config={
                "line": self._line,
                "base_model": self._base.name,
                "base_digest": self._base.digest,
                "base_path": str(self._base.path),
                "quantization": recipe.quantization,
            },
            scaling_config=ScalingConfig(
                num_workers=recipe.workers,
                use_gpu=recipe.gpus_per_worker > 0,
                accelerator_type=recipe.accelerator_type or None,
                resources_per_worker={
                    "CPU": recipe.cpus_per_worker,
                    **({"GPU": recipe.gpus_per_worker} if recipe.gpus_per_worker else {}),
                },
            ),
            run_config=RunConfig(
                name=self._name,
                storage_path=self._recipe.storage or str(self._folder.absolute()),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                failure_config=FailureConfig(max_failures=recipe.max_failures),
                callbacks=[Known(self._line)],
            ),
        )

    def _followed(
        self, fit: "Future[Any]", number: int, done: Callable[[int], object], say: Callable[[str], None]
    ) -> Trained:
        """What comes of a job, with its steps passed on meanwhile."""
        from ray.train.v2.api.exceptions import TrainingFailedError

        shown, room = 0, Room(self._recipe, say)
        while True:
            room.look()
            ended = bool(wait([fit], timeout=POLL_S).done)
            progress: Progress = ray.get(self._line.progress.remote(number))
            done(progress.steps - shown)
            shown = progress.steps
            for line in progress.said:
                say(line)
            if progress.done:
                trained: Trained = ray.get(self._line.take.remote(number))
                return trained
            if progress.refused is not None:
                self.close()
                raise StageError(f"fine-tuning {self._base.name}: {progress.refused}")
            if ended:
                self._fit = None
                try:
                    fit.result()
                except TrainingFailedError as error:
                    raise StageError(f"fine-tuning {self._base.name} failed: {_last_line(error)}") from error
                raise StageError(f"fine-tuning {self._base.name} ended without an adapter: see Ray's log")

    def clear(self) -> None:
        """Remove the checkpoints: a driver that died after its last fine-tuning has left them."""
        if not self._recipe.storage:
            remove(self._folder / self._name)
            return
        from pyarrow.fs import FileSystem, FileType

        system, path = FileSystem.from_uri(f"{self._recipe.storage.rstrip('/')}/{self._name}")
        if system.get_file_info(path).type != FileType.NotFound:
            system.delete_dir(path)


def optimizer_steps(rows: int, recipe: FineTune) -> int:
    """How many steps a training of all epochs takes."""
    recipe = recipe.at(rows)
    batches = ceil(rows / (recipe.batch_size * recipe.workers))
    return ceil(batches / recipe.gradient_accumulation) * recipe.epochs


def _beside(work: Callable[[], object]) -> "Future[Any]":
    """Work in a thread that the interpreter does not wait for at its end, as it does for an executor's."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - for who waits for the future
            future.set_exception(error)

    Thread(target=run, name="ray-train", daemon=True).start()
    return future


def _work(config: dict[str, Any]) -> None:
    """Runs on the workers: only they import torch, trl and peft."""
    hush()
    from mlflow_llamaduo.finetune.worker import train_worker

    train_worker(config)


def _adapter(path: Path, base: BaseModelFolder, trained: Trained) -> Adapter:
    metrics = trained.metrics
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
        losses=tuple(EpochLoss(**loss) for loss in metrics["losses"]),
        mask=trained.mask,
        probed=trained.probed,
    )


def _example(pair: Pair) -> dict[str, Any]:
    return {
        "id": pair.id,
        "prompt": [{"role": message.role, "content": message.content} for message in pair.prompt],
        "response": pair.response,
    }


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
