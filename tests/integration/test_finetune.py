"""Ray Train's workers on a real local cluster, with a base model small enough to train in a moment."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import FineTune
from mlflow_llamaduo.core.records import Adapter, Message, Pair, PairSet
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.finetune import TrainWorkers
from tests.tiny import tiny_base, tiny_pairs

TRAIN, DEV = tiny_pairs(32), tiny_pairs(8, start=100)
RECIPE = FineTune(
    lora_rank=4,
    lora_alpha=8,
    lora_dropout=0.1,
    learning_rate=5e-3,
    epochs=3,
    batch_size=4,
    gradient_accumulation=2,
    quantization="none",
    gpus_per_worker=0,
    max_length=256,
    patience=0,
)


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    """One for all tests of this file."""
    with cluster():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFolder:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def group(base: BaseModelFolder, tmp_path: Path) -> Iterator[Any]:
    """Makes groups of workers, and lets all of them go."""
    made: list[TrainWorkers] = []

    def make(**changed: Any) -> TrainWorkers:
        name = f"run-{len(made)}"
        made.append(TrainWorkers(base, RECIPE.model_copy(update=changed), name=name, folder=tmp_path / "training"))
        return made[-1]

    yield make
    for workers in made:
        workers.close()


def trained(workers: TrainWorkers, target: Path, train: PairSet = TRAIN, **given: Any) -> Adapter:
    done = given.pop("done", lambda steps: None)
    return workers.finetune(train, DEV, key=target.name, target=target, done=done, **given)


def worker_process() -> psutil.Process:
    """The train worker; one of a group that was closed a moment ago may still be ending."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append((process.create_time(), process.pid, process))
        except psutil.NoSuchProcess:
            continue
    return max(found)[2]


@pytest.fixture(scope="module")
def undisturbed(base: BaseModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """What comes of the recipe when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    workers = TrainWorkers(base, RECIPE, name="undisturbed", folder=folder / "training")
    adapter = trained(workers, folder / "adapter")
    workers.close()
    assert not (folder / "training" / "undisturbed").exists(), "checkpoints of a finished job were left"
    return adapter


def test_an_adapter_comes_home_whole_and_without_a_pickle(undisturbed: Adapter) -> None:
    files = {file.name for file in Path(undisturbed.path).rglob("*")}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    config = json.loads((Path(undisturbed.path) / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert [loss.epoch for loss in undisturbed.losses] == [1, 2, 3]
    assert undisturbed.eval_loss == min(loss.dev for loss in undisturbed.losses) < undisturbed.losses[0].dev
    assert undisturbed.tokens > 0 and undisturbed.seconds > 0


def test_a_person_can_read_what_was_learned(undisturbed: Adapter) -> None:
    assert undisturbed.mask.count("## Row") == 3
    assert f"⟦{TRAIN.pairs[0].response}" in undisturbed.mask


def test_workers_stay_for_the_next_round_and_train_the_same(group: Any, tmp_path: Path, undisturbed: Adapter) -> None:
    workers = group()
    first = trained(workers, tmp_path / "first", tiny_pairs(12))
    before = worker_process()
    second = trained(workers, tmp_path / "second")
    assert worker_process().pid == before.pid
    assert first.digest != second.digest
    assert second.digest == undisturbed.digest, "what was trained before has left something behind"


def test_two_workers_reach_the_loss_of_one(group: Any, tmp_path: Path) -> None:
    """QLoRA in NF4. The same rows in each step, so the losses differ by the order of sums alone: 0.1 % at most."""
    alone = group(lora_dropout=0.0, quantization="nf4")
    one = trained(alone, tmp_path / "one")
    alone.close()  # the cluster has two CPUs
    two = trained(group(lora_dropout=0.0, quantization="nf4", workers=2, gradient_accumulation=1), tmp_path / "two")
    assert two.eval_loss == pytest.approx(one.eval_loss, rel=1e-3)
    assert [loss.dev for loss in two.losses] == pytest.approx([loss.dev for loss in one.losses], rel=1e-3)
    assert [loss.train for loss in two.losses] == pytest.approx([loss.train for loss in one.losses], rel=1e-2)


def test_a_killed_worker_goes_on_from_its_checkpoint(group: Any, tmp_path: Path, undisturbed: Adapter) -> None:
    killed: list[int] = []
    steps: list[int] = []

    def kill_once(new: int) -> None:
        steps.append(new)
        if sum(steps) >= 5 and not killed:
            victim = worker_process()
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    adapter = trained(group(checkpoint_steps=1), tmp_path / "adapter", done=kill_once)
    assert killed, "the training was over before it could be killed"
    assert adapter.digest == undisturbed.digest
    assert [loss.dev for loss in adapter.losses] == [loss.dev for loss in undisturbed.losses]
    assert adapter.tokens == undisturbed.tokens


def test_training_stops_when_dev_loss_no_longer_falls(group: Any, tmp_path: Path) -> None:
    seen: set[Path] = set()
    shared = tmp_path / "shared"
    workers = group(patience=1, epochs=12, learning_rate=0.5, storage=f"file://{shared}")
    adapter = trained(workers, tmp_path / "adapter", done=lambda _: seen.update(shared.rglob("job.json")))
    workers.close()
    assert seen, "no checkpoint was in the storage that was named"
    assert not any(shared.rglob("job.json")), "checkpoints of a finished job were left"
    losses = [loss.dev for loss in adapter.losses]
    assert len(losses) < 12
    assert losses[-1] >= min(losses) == adapter.eval_loss


def test_what_fits_nowhere_is_told_in_one_line(group: Any, tmp_path: Path) -> None:
    long = PairSet((Pair((Message("user", "q"),), "fox " * 400),))
    with pytest.raises(StageError, match=r"none of 1 train pairs can be learned at finetune.max_length 64"):
        trained(group(max_length=64), tmp_path / "adapter", long)


def test_a_base_without_a_template_names_the_key(tmp_path: Path) -> None:
    plain = tiny_base(tmp_path / "plain", tokenizer="llama3")
    workers = TrainWorkers(plain, RECIPE, name="plain", folder=tmp_path / "training")
    with pytest.raises(StageError, match=r"finetune\.chat_template: chatml"):
        trained(workers, tmp_path / "adapter")
    workers.close()
