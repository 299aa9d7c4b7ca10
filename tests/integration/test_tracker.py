"""Runs and their nesting, in a real MLflow on SQLite."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_llamaduo.core.metric_names import known
from mlflow_llamaduo.core.records import PairSet, TaskPrompt
from mlflow_llamaduo.core.rounds import State
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.tracking import Tracker
from tests.integration.tracked import GATHERED, recorded
from tests.unit.builders import project


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
        project(), GATHERED, journal, {"judge": TaskPrompt("test", "Judge.", "prompts:/judge/3")}, lambda: ()
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


def test_baselines_and_a_round_are_in_metrics_by_name(journal: Journal) -> None:
    metrics = MlflowClient().get_run(recorded(journal).run_id).data.metrics

    expected = {
        "baseline/base/precision_mean": 40,
        "baseline/base/exact_match": 12.5,
        "baseline/base/usd": 0.25,
        "baseline/service_llm/perf_matching/similarity_mean": 100,
        "judge/precision_mean": 60,
        "judge/calls_saved": 7,
        "judges/acme/judge_2/precision_mean": 50,
        "perf_matching/precision_mean": 75,
        "pairwise/reference/win_rate": 100,
        "reference/exact_match": 12.5,
    }
    assert {name: metrics[name] for name in expected} == expected
    assert metrics["judge/precision_mean_low"] < 60 < metrics["judge/precision_mean_high"]


def test_every_metric_of_a_run_is_in_the_table_of_metrics(journal: Journal) -> None:
    run_id = recorded(journal).run_id
    client = MlflowClient()
    parent = client.get_run(run_id)
    (child,) = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    told = {"parent": set(parent.data.metrics), "round": set(child.data.metrics)}

    found = {name: known(name) for name in told["parent"] | told["round"]}
    assert [name for name, metric in found.items() if metric is None] == []
    for name, metric in found.items():
        runs = "both" if all(name in of for of in told.values()) else next(r for r in told if name in told[r])
        assert metric is not None and metric.runs == runs, name


def test_a_round_and_each_baseline_have_their_tables(journal: Journal) -> None:
    run_id = recorded(journal).run_id
    client = MlflowClient()
    (child,) = client.search_runs(
        [client.get_run(run_id).info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    files = {file.path for file in client.list_artifacts(run_id, "baseline")}

    assert files == {f"baseline/{n}_{t}.json" for n in ("base", "service_llm") for t in ("responses", "verdicts")}
    own = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert own >= {"responses.json", "verdicts.json", "comparisons.json", "scorecard.json", "mask.md"}


def test_every_judged_response_is_a_trace_with_its_scores(journal: Journal) -> None:
    """The rounds' on their runs, the baselines' on the parent: the same response ids, told apart by tag."""
    run_id = recorded(journal).run_id
    recorded(journal)  # gone on with: nothing is written twice
    experiment = MlflowClient().get_run(run_id).info.experiment_id
    traces = mlflow.search_traces(locations=[experiment], return_type="list", include_spans=False)
    names = sorted(t.info.tags.get("llamaduo.baseline") or "round " + t.info.tags["llamaduo.round"] for t in traces)

    assert names == [*3 * ["base"], *3 * ["round 0"], *3 * ["service_llm"]]
    for trace in traces:
        found = {assessment.name for assessment in trace.info.assessments}
        assert found == {"similarity", "precision", "expected_response"}
