"""One small alignment of the real model, shared by the tests of this folder: killed once, finished, then passed."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.requirements import required

ROOT = Path(__file__).parents[2]
PAIRS = 14
NEVER = "precision_mean"


@dataclass(frozen=True)
class Workspace:
    """A folder with a project in it, as a user's clone has one."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """No MLflow variables from outside: the defaults are what is tested. No pyenv either."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LLAMADUO_TASK", "PYENV"))}
        path = [p for p in kept["PATH"].split(os.pathsep) if "pyenv" not in p]
        return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), *path])}

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a program in the folder."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def llamaduo(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        process = self.start("llamaduo", *arguments)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def stage_files(self, stage: str) -> dict[str, int]:
        """Finished values of a stage, and when each was written."""
        files = (self.folder / ".llamaduo/closed_qa/stages" / stage).glob("*.json")
        return {file.name: file.stat().st_mtime_ns for file in files}

    def replies(self) -> list[tuple[str, float]]:
        """Key and time of every reply that was asked for."""
        with sqlite3.connect(self.folder / ".llamaduo/replies.sqlite") as store:
            return list(store.execute("SELECT key, created FROM replies"))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A fresh folder with the project and a short coverage file."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "projects", folder / "projects")
    for name in ("MLproject", "python_env.yaml"):
        shutil.copy(ROOT / name, folder)
    _edit(folder / "projects/closed_qa/duo.yaml", coverage={"test_rows": 4, "dev_rows": 2}, gate={NEVER: 100})
    _edit(
        folder / "projects/profiles/local.yaml",
        inference={"max_new_tokens": 16},
        finetune={"epochs": 1},
        synthesis={"rows_per_round": 4},
        limits={"rounds": 2},
        baselines={"few_shot": 1},
    )
    coverage = folder / "projects/closed_qa/coverage.jsonl"
    coverage.write_text("".join(f"{_planted(line)}\n" for line in coverage.read_text().splitlines()[:PAIRS]))
    return Workspace(folder)


def _planted(line: str) -> str:
    """A pair whose prompt and answer attack whoever shows them as HTML."""
    row = json.loads(line)
    prompt, answer = row["messages"]
    prompt["content"] = f"<script>window.hacked = 1</script> {prompt['content']}"
    answer["content"] = f"{answer['content']} <img src=x onerror='window.hacked = 1'>"
    return json.dumps(row)


def _edit(file: Path, **sections: dict[str, int]) -> None:
    """Change keys of a YAML file, section by section; the gate is replaced."""
    tree = yaml.safe_load(file.read_text())
    for name, keys in sections.items():
        tree[name] = keys if name == "gate" else {**tree.get(name, {}), **keys}
    file.write_text(yaml.safe_dump(tree))


@dataclass(frozen=True)
class Killed:
    """What a run had finished when it was ended with SIGKILL."""

    judged: dict[str, int]
    replies: list[tuple[str, float]]


@pytest.fixture(scope="session")
def killed(workspace: Workspace) -> Killed:
    """A run that is killed while it trains for the first time."""
    process = workspace.start("llamaduo", "run")
    deadline = time.monotonic() + 400
    training = workspace.folder / ".llamaduo/closed_qa/training"
    while not any(training.glob("*/*")):  # Ray Train's own folder of the alignment
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "training never began"
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return Killed(workspace.stage_files("judge"), workspace.replies())


@pytest.fixture(scope="session")
def finished(workspace: Workspace, killed: Killed) -> "subprocess.CompletedProcess[str]":
    """The same command again: two rounds, and a gate that nothing passes."""
    return workspace.llamaduo("run")


@pytest.fixture(scope="session")
def passed(workspace: Workspace, finished: "subprocess.CompletedProcess[str]") -> "subprocess.CompletedProcess[str]":
    """An alignment of the same data with a gate that the model passes, in the words that a user types."""
    process = workspace.start("mlflow", "run", ".", "-P", "task=closed_qa", "-P", "gate=judged_share=95")
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess("mlflow run", process.returncode, out, err)


@pytest.fixture
def client(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(workspace.folder)  # artifact paths of a local store are relative to it
    uri = f"sqlite:///{workspace.folder}/mlflow.db"
    return MlflowClient(uri, uri)


def parents(client: MlflowClient, experiment: str = "llamaduo-closed_qa") -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])
    return [run for run in runs if "llamaduo.fingerprint" in run.data.tags]


@pytest.fixture(autouse=True)
def _gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            assert "gpu" not in required(), "LLAMADUO_REQUIRE=gpu, and there is no GPU"
            pytest.skip("no GPU")
    yield
