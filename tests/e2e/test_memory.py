"""The memory that a plan says against the memory that a process had, on the real small model.

Memory is no time: the same work takes the same on any machine, but for what the allocator makes of it.
"""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mlflow_llamaduo.base_models.shape import find_shape
from mlflow_llamaduo.config import load
from mlflow_llamaduo.core.memory import PROCESS_BYTES
from mlflow_llamaduo.core.records import PairSet
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.coverage import read_pairs
from mlflow_llamaduo.files import to_jsonl
from mlflow_llamaduo.fit import Fit, fits
from tests.e2e.conftest import ROOT, Workspace

pytestmark = pytest.mark.e2e

TOLERANCE = 0.2
WITHOUT_LIBRARIES = 0.3
IMPORTS = "import ray.train, torch, transformers, peft, trl, bitsandbytes, mlflow_llamaduo.finetune.worker"
TRAIN, DEV, TEST = slice(0, 32), slice(32, 36), slice(36, 52)


@dataclass(frozen=True)
class Measured:
    """Bytes: the peak of the process that computed, and what its libraries take by themselves."""

    peak: int
    imports: int


@dataclass(frozen=True)
class Trained:
    """A folder with its pairs and the adapter that was trained there."""

    workspace: Workspace
    measured: Measured
    planned: dict[str, Fit]


def peak_of(pid: int) -> int:
    """The most that a process has had so far, as the kernel counts it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return 1024 * int(found.group(1)) if found else 0


def imported() -> int:
    """What a Python with the libraries takes before it does anything."""
    code = f"{IMPORTS}; import psutil; print(psutil.Process().memory_info().rss)"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def watched(workspace: Workspace, *command: str) -> Measured:
    """Run a command; the process that computes is the largest of those it starts."""
    peaks: dict[int, int] = {}
    process = workspace.start("llamaduo", *command)
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    peaks[child.pid] = max(peaks.get(child.pid, 0), peak_of(child.pid))
                except (FileNotFoundError, ProcessLookupError):
                    continue
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        out, err = process.communicate(timeout=600)
    finally:
        done.set()
        watcher.join()
    assert process.returncode == 0, out + err
    return Measured(max(peaks.values()), imported())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """One epoch of the local profile's recipe, and what a plan says of it."""
    folder = tmp_path_factory.mktemp("memory")
    (folder / "projects").symlink_to(ROOT / "projects")
    workspace = Workspace(folder)
    pairs = read_pairs(ROOT / "projects/closed_qa/coverage.jsonl").pairs
    for name, part in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        (folder / f"{name}.jsonl").write_text(to_jsonl(pair.row() for pair in pairs[part]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
        project = load("closed_qa", "local", {"baselines.few_shot": 0})  # `infer` asks without examples
    parts = Split(PairSet(pairs[TRAIN]), PairSet(pairs[DEV]), PairSet(pairs[TEST]))
    planned = {
        fit.stage: fit for fit in fits(project, parts, find_shape(project.base_model)) if fit.place.gpu is None
    }
    done = watched(
        workspace, "finetune", "--train", "train.jsonl", "--dev", "dev.jsonl", "--out", "adapter", "--epochs", "1"
    )
    yield Trained(workspace, done, planned)


def compare(planned: Fit, measured: Measured) -> None:
    """With the libraries, as a plan says it; and without them, which take the same whatever is planned."""
    said, own = planned.memory.total, planned.memory.total - PROCESS_BYTES["cpu"]
    figures = f"planned {said / 1e9:.2f} GB, measured {measured.peak / 1e9:.2f}, imports {measured.imports / 1e9:.2f}"
    assert said == pytest.approx(measured.peak, rel=TOLERANCE), figures
    assert own == pytest.approx(measured.peak - measured.imports, rel=WITHOUT_LIBRARIES), figures


def test_training_takes_what_a_plan_says(trained: Trained) -> None:
    compare(trained.planned["train"], trained.measured)


def test_answering_takes_what_a_plan_says(trained: Trained) -> None:
    measured = watched(
        trained.workspace, "infer", "--in", "test.jsonl", "--adapter", "adapter", "--out", "responses.jsonl"
    )

    compare(trained.planned["answer"], measured)
