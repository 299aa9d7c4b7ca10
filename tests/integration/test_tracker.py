"""Runs and their nesting, in a real MLflow on SQLite."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_llamaduo.core.records import PairSet, TaskPrompt
from mlflow_llamaduo.core.rounds import Split, State
from mlflow_llamaduo.coverage.gathered import Gathered
from mlflow_llamaduo.coverage.source import Report
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.tracking import Tracker
from tests.unit.builders import project

NOTHING = PairSet(())
GATHERED = Gathered(
    Split(NOTHING, NOTHING, NOTHING),
    Report("pairs.jsonl", 3, 1, {"messages": 1}, {"no_answer": 2}, {"email": 1}, {}),
    (),
)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("tracker")
    return Journal(tmp_path / "work", "one")


def nested(journal: Journal) -> tuple[str, list[str]]:
    """The run of an alignment of two rounds, and those of the rounds."""
    tracker = Tracker(
        project(), GATHERED, journal, {"judge": TaskPrompt("test", "Judge.", "prompts:/judge/3")}, lambda _: 0.0
    )
    rounds = []
    with tracker.alignment():
        for number in range(2):
            with tracker.round(number) as log:
                rounds.append(log.run_id)
        tracker.finish(State(PairSet(()), PairSet(()), PairSet(())), "rounds")
    return tracker.run_id, rounds


def check(parent: str, rounds: list[str]) -> None:
    client = MlflowClient()
    assert len({parent, *rounds}) == 3
    for number, run_id in enumerate(rounds):
        tags = client.get_run(run_id).data.tags
        assert (tags["mlflow.parentRunId"], tags["llamaduo.round"]) == (parent, str(number))
    assert "llamaduo.round" not in client.get_run(parent).data.tags


def test_a_round_is_a_run_within_the_alignments(journal: Journal) -> None:
    check(*nested(journal))


def test_under_mlflow_run_the_alignment_is_mlflows_run_and_a_round_is_another(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run() as own:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", own.info.run_id)
    parent, rounds = nested(journal)

    assert parent == own.info.run_id
    check(parent, rounds)


def test_an_alignment_that_goes_on_has_its_runs_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nested(journal)
    with mlflow.start_run() as own:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", own.info.run_id)

    assert nested(journal) == first
    tags = MlflowClient().get_run(own.info.run_id).data.tags
    assert (tags["llamaduo.continued_in"], tags["llamaduo.outcome"]) == (first[0], "rounds")
