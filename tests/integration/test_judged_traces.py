"""Judged responses as MLflow traces, in a real MLflow on SQLite."""

import json
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Feedback, Trace
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_llamaduo.core.records import Judgement, Response, Unjudged, Verdict
from mlflow_llamaduo.tracking.judged import feedback, log_judged
from tests.unit.builders import response, unjudged, verdict

TAGS = {"llamaduo.round": "2", "llamaduo.task": "closed_qa"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all: MLflow takes seconds to make it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def run_id(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment(tmp_path.name)
    with mlflow.start_run() as run:
        return str(run.info.run_id)


def log(run_id: str, responses: list[Response], judgements: Sequence[Judgement]) -> list[Trace]:
    """Write, and read all that the run has by now."""
    log_judged(responses, judgements, experiment_id=None, run_id=run_id, tags=TAGS)
    experiment = mlflow.get_run(run_id).info.experiment_id
    traces = mlflow.search_traces(locations=[experiment], run_id=run_id, return_type="list")
    return sorted(traces, key=lambda trace: str(trace.info.tags["llamaduo.response"]))


def given(trace: Trace, name: str, judge: str = "judge") -> Feedback:
    (found,) = [f for f in trace.search_assessments(name, type="feedback") if f.source.source_id == judge]
    return found


def test_a_judged_response_is_a_trace_of_its_run(run_id: str) -> None:
    (trace,) = log(run_id, [response("Bern")], [verdict("p0/0", 80)])

    (span,) = trace.data.spans
    assert span.name == "response"
    assert (span.inputs, span.outputs) == ({"instruction": "Which town?"}, {"response": "Bern"})
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run_id
    assert {"llamaduo.response": "p0/0", "llamaduo.judged": "true", **TAGS}.items() <= trace.info.tags.items()
    (expected,) = trace.search_assessments("expected_response", type="expectation")
    assert (expected.value, expected.source.source_type) == ("Arn", "CODE")
    assert (trace.info.request_preview, trace.info.response_preview) == ("Which town?", "Bern")


def test_a_judges_scores_are_feedback_with_their_mean_and_reasons(run_id: str) -> None:
    judgements: list[Judgement] = [
        Verdict("p0/0", "judge", 0, 80, 90, "close | exact"),
        Verdict("p0/0", "judge", 1, 85.5, 91, "very\nclose | a | b"),
        unjudged("p0/0", repeat=2),
    ]
    (trace,) = log(run_id, [response()], judgements)

    similarity, precision = given(trace, "similarity"), given(trace, "precision")
    assert (similarity.value, precision.value) == (82.75, 90.5)
    assert similarity.rationale == "close\nvery close | a | b"
    assert precision.rationale == "exact\nvery close | a | b"
    assert (similarity.source.source_type, similarity.source.source_id) == ("LLM_JUDGE", "judge")
    assert similarity.metadata is not None
    assert (similarity.metadata["repeats"], json.loads(similarity.metadata["scores"])) == ("3", [80, 85.5])


def test_each_judge_has_feedback_of_its_own(run_id: str) -> None:
    (trace,) = log(run_id, [response()], [verdict("p0/0", 80, judge="one"), verdict("p0/0", 20, judge="two")])

    assert given(trace, "precision", "one").value == 80
    assert given(trace, "precision", "two").value == 20


def test_a_response_without_a_verdict_has_an_error_and_no_score(run_id: str) -> None:
    judgements = [unjudged("p0/0", reason="no JSON"), unjudged("p0/0", repeat=1, reason="refused")]
    (trace,) = log(run_id, [response()], judgements)

    found = given(trace, "similarity")
    assert found.value is None
    assert found.error is not None
    assert (found.error.error_code, found.error.error_message) == ("UNJUDGED", "no JSON; refused")


def test_a_response_that_was_not_judged_is_no_trace(run_id: str) -> None:
    (trace,) = log(run_id, [response(), response(sample=1)], [verdict("p0/1", 80)])

    assert trace.info.tags["llamaduo.response"] == "p0/1"


def test_what_is_written_is_not_written_again_and_keeps_a_persons_word(run_id: str) -> None:
    (trace,) = log(run_id, [response()], [verdict("p0/0", 80)])
    judges = given(trace, "precision")
    mlflow.override_feedback(trace_id=trace.info.trace_id, assessment_id=judges.assessment_id, value=10)

    both, verdicts = [response(), response("Bern", sample=1)], [verdict("p0/0", 80), verdict("p0/1", 30)]
    log(run_id, both, verdicts)
    again, fresh = log(run_id, both, verdicts)

    assert again.info.trace_id == trace.info.trace_id
    assert [each.value for each in again.search_assessments("precision", type="feedback")] == [10]
    assert given(fresh, "precision").value == 30


def test_two_runs_have_traces_of_their_own(run_id: str) -> None:
    with mlflow.start_run() as other:
        pass
    assert len(log(run_id, [response()], [verdict("p0/0", 80)])) == 1
    assert len(log(other.info.run_id, [response()], [verdict("p0/0", 80)])) == 1
    assert len(log(run_id, [response()], [verdict("p0/0", 80)])) == 1


def test_the_answers_of_two_baselines_have_the_same_ids_and_are_both_written(run_id: str) -> None:
    experiment = mlflow.get_run(run_id).info.experiment_id
    for name in ("base", "few_shot", "base", "few_shot"):
        log_judged(
            [response(f"by {name}")],
            [verdict("p0/0", 80)],
            experiment_id=experiment,
            run_id=run_id,
            tags={"llamaduo.baseline": name},
        )

    traces = mlflow.search_traces(locations=[experiment], run_id=run_id, return_type="list")
    assert sorted(trace.data.spans[0].outputs["response"] for trace in traces) == ["by base", "by few_shot"]


@pytest.mark.parametrize(
    ("hostile", "kept"),
    [
        ("a\x00\x1b[2Jb", "a\ufffd\ufffd[2Jb"),
        ("half \ud83d a character", "half \ufffd a character"),
        ("x" * 100_000, "x" * 100_000),
        ("'; DROP TABLE spans; --\r\n\u202e<script>", "'; DROP TABLE spans; --\r\n\u202e<script>"),
        ('{"response": "nested"}', '{"response": "nested"}'),
        ("", ""),
    ],
    ids=["control", "surrogate", "long", "sql", "json", "empty"],
)
def test_hostile_text_is_kept_as_far_as_a_database_can(run_id: str, hostile: str, kept: str) -> None:
    all_ = Response("p0", 0, hostile, hostile, hostile, 0)
    judgement = Verdict("p0/0", "judge", 0, 1, 2, f"{hostile[:500]} | {hostile[:500]}")
    (trace,) = log(run_id, [all_], [judgement])

    (span,) = trace.data.spans
    assert (span.inputs["instruction"], span.outputs["response"]) == (kept, kept)
    (expected,) = trace.search_assessments("expected_response", type="expectation")
    assert expected.value == kept
    assert given(trace, "precision").value == 2


def test_a_trace_and_its_assessments_are_one_write(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    single: list[object] = []
    monkeypatch.setattr(SqlAlchemyStore, "create_assessment", lambda _, assessment: single.append(assessment))
    (trace,) = log(run_id, [response()], [verdict("p0/0", 80)])

    assert len(trace.info.assessments) == 3
    assert single == []


def test_no_judgement_is_no_feedback_but_an_error_says_so() -> None:
    found = feedback("precision", [Unjudged("p0/0", "judge", 0, "half \ud83d")])

    assert found.value is None
    assert found.error is not None
    assert found.error.error_message == "half \ufffd"
