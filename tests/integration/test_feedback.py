"""Judges and people, read back from the traces of a run in a real MLflow on SQLite."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from click.testing import CliRunner
from mlflow.entities import AssessmentSource, Feedback

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.core.records import Judgement, Response, Unjudged, Verdict
from mlflow_llamaduo.core.trust import Judged, Scores
from mlflow_llamaduo.errors import DataError, StageError
from mlflow_llamaduo.tracking import feedback
from mlflow_llamaduo.tracking.feedback import judged_responses
from mlflow_llamaduo.tracking.judged import log_judged

JUDGE = AssessmentSource(source_type="LLM_JUDGE", source_id="openai/gpt-4o")
ANNA = AssessmentSource(source_type="HUMAN", source_id="anna")
BEN = AssessmentSource(source_type="HUMAN", source_id="ben")


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")
    yield
    mlflow.flush_trace_async_logging()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def run_id(request: pytest.FixtureRequest) -> str:
    """A new run in an experiment of its own, which is the active one."""
    mlflow.set_experiment(request.node.name)
    with mlflow.start_run() as run:
        return str(run.info.run_id)


def trace(run_id: str, response_id: str, text: str = "The town is Arn", **tags: str) -> str:
    """One judged response as a round writes it, its reference included, without scores."""
    span = mlflow.start_span_no_context(
        "response",
        inputs={"instruction": f"Which town of {response_id}?"},
        tags={"llamaduo.judged": "true", "llamaduo.response": response_id, **tags},
        metadata={"mlflow.sourceRun": run_id},
    )
    span.end(outputs={"response": text})
    mlflow.flush_trace_async_logging()
    trace_id = str(span.trace_id)
    mlflow.log_expectation(trace_id=trace_id, name="expected_response", value="Arn")
    return trace_id


def gives(trace_id: str, source: AssessmentSource, value: Any, name: str = "precision", **more: Any) -> str:
    given = mlflow.log_feedback(trace_id=trace_id, name=name, value=value, source=source, **more)
    return str(given.assessment_id)


def judge(trace_id: str, *scores: float, name: str = "precision", source: AssessmentSource = JUDGE) -> str:
    mean = sum(scores) / len(scores)
    return gives(trace_id, source, mean, name, metadata={"scores": json.dumps(scores), "repeats": str(len(scores))})


def read(run_id: str) -> tuple[dict[str, Judged], list[str]]:
    """What is read by response id, and what was told."""
    told: list[str] = []
    found = list(judged_responses(run_id, told.append))
    by_id = {each.id: each for each in found}
    assert len(by_id) == len(found)
    return by_id, told


def test_answers_that_a_run_was_compared_with_are_not_its_own(run_id: str) -> None:
    judge(trace(run_id, "p0/0", **{"llamaduo.round": "0"}), 80)
    for name in ("base", "service_llm"):
        judge(trace(run_id, "p0/0", "another text", **{"llamaduo.baseline": name}), 20)
    by_id, told = read(run_id)

    assert [each.response.text for each in by_id.values()] == ["The town is Arn"]
    assert told == []


def test_a_run_of_nothing_but_baselines_is_no_round(run_id: str) -> None:
    judge(trace(run_id, "p0/0", **{"llamaduo.baseline": "base"}), 80)

    with pytest.raises(DataError, match="name the run of one round, not of the whole alignment"):
        read(run_id)


def test_a_response_comes_back_with_its_texts_and_every_single_judging(run_id: str) -> None:
    first = trace(run_id, "p0/0")
    judge(first, 80, 70)
    judge(first, 60, 50, name="similarity")
    (found,) = read(run_id)[0].values()

    assert (found.response.instruction, found.response.reference, found.response.text) == (
        "Which town of p0/0?",
        "Arn",
        "The town is Arn",
    )
    assert found.scores == {"openai/gpt-4o": Scores((60, 50), (80, 70))}
    assert found.people == {"similarity": (), "precision": ()}


def test_an_override_is_what_a_person_says_and_leaves_what_the_judge_said(run_id: str) -> None:
    first = trace(run_id, "p0/0")
    wrong = judge(first, 80, 70)
    copied = {"scores": "[80, 70]", "repeats": "2"}  # MLflow's page of a trace copies the judge's metadata
    mlflow.override_feedback(trace_id=first, assessment_id=wrong, value=20, source=ANNA, metadata=copied)
    (found,) = read(run_id)[0].values()

    assert (found.scores["openai/gpt-4o"].precision, found.people["precision"]) == ((80, 70), (20,))


def test_an_override_without_a_source_is_a_persons_too(run_id: str) -> None:
    first = trace(run_id, "p0/0")
    mlflow.override_feedback(trace_id=first, assessment_id=judge(first, 80), value=20)

    assert read(run_id)[0]["p0/0"].people["precision"] == (20,)


def test_every_person_counts_once_with_what_was_said_last(run_id: str) -> None:
    first = trace(run_id, "p0/0")
    wrong = judge(first, 80)
    annas = mlflow.override_feedback(trace_id=first, assessment_id=wrong, value=20, source=ANNA).assessment_id
    mlflow.override_feedback(trace_id=first, assessment_id=annas, value=30, source=ANNA)
    gives(first, BEN, 99)
    gives(first, BEN, 40)

    assert sorted(read(run_id)[0]["p0/0"].people["precision"]) == [30, 40]


def test_a_label_that_was_edited_in_place_is_what_was_said_last(run_id: str) -> None:
    first = trace(run_id, "p0/0")
    edited = gives(first, ANNA, 99)
    gives(first, ANNA, 40)
    mlflow.update_assessment(trace_id=first, assessment_id=edited, assessment=Feedback(name="precision", value=70))

    assert read(run_id)[0]["p0/0"].people["precision"] == (70,)


def test_a_label_that_another_person_overrides_no_longer_counts(run_id: str) -> None:
    first = trace(run_id, "p0/0")
    mlflow.override_feedback(trace_id=first, assessment_id=gives(first, ANNA, 20), value=90, source=BEN)

    assert read(run_id)[0]["p0/0"].people["precision"] == (90,)


def test_two_judges_of_a_response_are_two_and_the_newest_of_each_counts(run_id: str) -> None:
    other = AssessmentSource(source_type="LLM_JUDGE", source_id="other")
    first = trace(run_id, "p0/0")
    mlflow.override_feedback(trace_id=first, assessment_id=judge(first, 10), value=80, source=JUDGE)
    judge(first, 30, source=other)
    found = read(run_id)[0]["p0/0"]

    assert {name: scores.precision for name, scores in found.scores.items()} == {
        "openai/gpt-4o": (80,),
        "other": (30,),
    }
    assert found.people["precision"] == ()


def test_what_is_no_score_is_told_and_left_out(run_id: str) -> None:
    first, second = trace(run_id, "p0/0"), trace(run_id, "p1/0")
    gives(first, ANNA, "very good")
    gives(first, BEN, True)
    gives(first, JUDGE, 55.0, metadata={"scores": "[[["})
    gives(second, JUDGE, 55.0, metadata={"scores": '[50, 60, "high", NaN]'})
    found, told = read(run_id)

    assert list(found["p0/0"].people["precision"]) == []
    assert list(found["p0/0"].scores["openai/gpt-4o"].precision) == [55]
    assert list(found["p1/0"].scores["openai/gpt-4o"].precision) == [50, 60]
    assert (
        sorted(told)
        == ["a judge's score that is no number from 0 to 100"] * 2
        + ["a person's feedback that is no number from 0 to 100"] * 2
    )


def test_a_judging_that_failed_is_unjudged_and_no_zero(run_id: str) -> None:
    failed, partly, never = (trace(run_id, f"p{number}/0") for number in range(3))
    for name in ("similarity", "precision"):
        asked = {"scores": "[]", "repeats": "4"}
        mlflow.log_feedback(trace_id=failed, name=name, error=ValueError("cut"), source=JUDGE, metadata=asked)
        gives(partly, JUDGE, 70, name, metadata={"scores": "[60, 80]", "repeats": "3"})
    assert never
    found, told = read(run_id)

    assert found["p0/0"].scores == {"openai/gpt-4o": Scores((), (), unjudged=4)}
    assert found["p1/0"].scores == {"openai/gpt-4o": Scores((60, 80), (60, 80), unjudged=1)}
    assert found["p2/0"].scores == {}
    assert told == []


def test_what_a_round_writes_is_read_back(run_id: str) -> None:
    responses = [Response("p0", 0, "Which town?", "Arn", "Bel", 3), Response("p1", 0, "Which town?", "Arn", "Arn", 3)]
    judgements: list[Judgement] = [
        Verdict("p0/0", "one", 0, 20, 30, "far | wrong"),
        Verdict("p0/0", "one", 1, 25.5, 30, "far | wrong"),
        Unjudged("p0/0", "one", 2, "cut"),
        Verdict("p0/0", "two", 0, 0, 0),
        Unjudged("p1/0", "one", 0, "no reply"),
    ]
    log_judged(responses, judgements, experiment_id=None, run_id=run_id, tags={})
    found, told = read(run_id)

    assert found["p0/0"].scores == {"one": Scores((20, 25.5), (30, 30), 1), "two": Scores((0,), (0,), 0)}
    assert found["p1/0"].scores == {"one": Scores((), (), 1)}
    assert [(r.instruction, r.reference, r.text) for r in (found[key].response for key in sorted(found))] == [
        ("Which town?", "Arn", "Bel"),
        ("Which town?", "Arn", "Arn"),
    ]
    assert told == []


def test_only_judged_responses_of_this_run_are_read_page_by_page(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "PAGE", 2)
    ids = [f"p{number}/0" for number in range(5)]
    for response_id in ids:
        judge(trace(run_id, response_id), 50)
    trace(run_id, "a call to the service LLM", **{"llamaduo.judged": "false"})
    with mlflow.start_run() as other:
        trace(other.info.run_id, "another run's")

    assert sorted(read(run_id)[0]) == ids


def test_a_trace_that_is_written_meanwhile_makes_none_come_twice(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "PAGE", 2)
    for number in range(4):
        judge(trace(run_id, f"p{number}/0"), 50)
    reading = judged_responses(run_id, pytest.fail)
    ids = [next(reading).id]
    judge(trace(run_id, "late/0"), 50)  # the newest: it moves all the others to later pages
    ids += [each.id for each in reading]

    assert sorted(ids) == [f"p{number}/0" for number in range(4)]


def test_a_trace_that_holds_no_response_is_told(run_id: str) -> None:
    trace(run_id, "")
    span = mlflow.start_span_no_context(
        "response",
        inputs=["no instruction"],
        tags={"llamaduo.judged": "true", "llamaduo.response": "p0/0"},
        metadata={"mlflow.sourceRun": run_id},
    )
    span.end(outputs={"response": 7})
    mlflow.flush_trace_async_logging()
    found, told = read(run_id)

    assert found == {}
    assert len(told) == 2


def test_a_run_that_is_not_there_or_has_no_judged_response_is_told(run_id: str) -> None:
    with pytest.raises(DataError, match="MLflow has no run 'nowhere'"):
        read("nowhere")
    with pytest.raises(DataError, match="no judged responses"):
        read(run_id)


def test_a_server_that_cannot_be_reached_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://user:planted-password@127.0.0.1:9")
    try:
        with pytest.raises(StageError, match="MLflow could not be read") as caught:
            read("some-run")
    finally:
        mlflow.set_tracking_uri(before)
    assert "planted-password" not in str(caught.value)


def test_the_report_of_a_run_holds_the_judge_beside_people(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("projects/closed_qa", "projects/profiles"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "projects/closed_qa/duo.yaml").write_text(yaml.safe_dump({"gate": 70}))
    (tmp_path / "projects/profiles/local.yaml").write_text("base_model: some/model\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMADUO_PROJECTS", raising=False)
    for number in range(4):
        traced = trace(run_id, f"p{number}/0")
        given = judge(traced, 20 * number, 20 * number + 10)
        if number < 2:
            mlflow.override_feedback(trace_id=traced, assessment_id=given, value=20 * number, source=ANNA)
            gives(traced, BEN, 20 * number + 20)
    (tmp_path / "labels.csv").write_text("id,precision\np0/0,40\np3/0,65\n")
    result = CliRunner().invoke(
        cli, ["judge-report", "--run", run_id, "--labels", "labels.csv", "--swap", "2", "--out", "report.json"]
    )

    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    (one,) = report["judges"]
    assert (one["judge"], one["judged"], one["judgings"], report["responses"]) == ("openai/gpt-4o", 4, 8, 4)
    precision = one["scores"][1]
    assert (precision["people"]["n"], precision["people"]["bias"]) == (3, pytest.approx(-20 / 3))
    assert precision["spread"]["points"] == pytest.approx(50**0.5)
    assert [(swap["judge"], swap["n"]) for swap in report["swaps"]] == [("offline/judge", 2)]
