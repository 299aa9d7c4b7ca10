"""What is begun or registered is there once, though MLflow's client asked twice or the driver died over it."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.config import load
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.registry import Registry
from mlflow_llamaduo.tracking import Tracker, reached
from tests.integration.test_registry import adapter, register
from tests.integration.test_tracker import GATHERED
from tests.unit.builders import project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("once")
    return tmp_path


def asked_twice(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A method of MLflow's client does what it does when an answer was lost: all again."""
    once = getattr(MlflowClient, name)

    def again(self: MlflowClient, *given: Any, **named: Any) -> Any:
        once(self, *given, **named)
        return once(self, *given, **named)

    monkeypatch.setattr(MlflowClient, name, again)


def aligned(folder: Path) -> None:
    tracker = Tracker(project(), GATHERED, Journal(folder / "work", "one"), {}, lambda: ())
    with tracker.alignment():
        for number in range(2):
            with tracker.round(number):
                pass


def runs() -> list[str]:
    """Rounds of the runs that are there, and their status."""
    found = MlflowClient().search_runs([mlflow.get_experiment_by_name("once").experiment_id])
    return sorted(f"{run.data.tags.get('llamaduo.round', 'all')} {run.info.status}" for run in found)


def test_a_run_whose_answer_was_lost_is_one_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_twice(monkeypatch, "create_run")
    aligned(folder)
    assert runs() == ["0 FINISHED", "1 FINISHED", "all FINISHED"]


def test_a_round_that_was_begun_and_not_noted_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DeadError(Exception):
        pass

    note = Journal.update

    def die(self: Journal, **changes: Any) -> None:
        if "round_run_ids" in changes:
            raise DeadError
        note(self, **changes)

    monkeypatch.setattr(Journal, "update", die)
    with pytest.raises(DeadError):
        aligned(folder)
    monkeypatch.setattr(Journal, "update", note)
    aligned(folder)
    assert runs() == ["0 FINISHED", "1 FINISHED", "all FINISHED"]


def test_a_version_whose_answer_was_lost_is_one_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_twice(monkeypatch, "create_model_version")
    number = register(Registry(load("closed_qa"), "one"), adapter(folder, "adapter"), passed=True)
    (version,) = MlflowClient().search_model_versions("name = 'llamaduo-closed_qa'")
    assert int(version.version) == number == 1


def test_a_server_that_stays_away_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StageError, match=r"gave no answer.*the same command goes on"), reached():
        MlflowClient("http://127.0.0.1:9").search_experiments()


def test_other_errors_of_mlflow_are_not_hidden(folder: Path) -> None:
    with pytest.raises(MlflowException, match="no-such-run"), reached():
        MlflowClient().get_run("no-such-run")
