"""Traces that MLflow logs of openai and litellm today, read back out of a real MLflow on SQLite."""

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import litellm
import mlflow
import openai
import pytest
from mlflow.entities import AssessmentSource

from mlflow_llamaduo.coverage import traces
from mlflow_llamaduo.coverage.rows import Row, Unreadable
from mlflow_llamaduo.coverage.traces import trace_rows
from mlflow_llamaduo.errors import DataError, StageError
from tests.http_double import Listening, QuietHandler

PERSON = AssessmentSource(source_type="HUMAN", source_id="user-7")
JUDGE = AssessmentSource(source_type="LLM_JUDGE", source_id="judge")

CALLBACKS = (
    "callbacks",
    "success_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_failure_callback",
)
CLOCK = itertools.count(1_790_000_000_000)
"""Milliseconds, so that no two traces are of the same one."""

Ask = Callable[[str], str]


class Provider(QuietHandler):
    """OpenAI's chat completions: answers `Answer to <question>`, in parts if it is to stream; refuses "Fail"."""

    def do_POST(self) -> None:
        asked = json.loads(self.body())
        answer = f"Answer to {asked['messages'][-1]['content']}"
        if answer.endswith("Fail"):
            self.reply(b'{"error": {"message": "refused"}}', 400, content_type="application/json")
        elif asked.get("stream"):
            halves = [{"role": "assistant", "content": half} for half in (answer[:5], answer[5:])]
            deltas: list[dict[str, str]] = [*halves, {}]
            events = [self.answer({"delta": delta}, "chat.completion.chunk") for delta in deltas]
            self.reply(
                b"".join(b"data: %s\n\n" % event for event in [*events, b"[DONE]"]), content_type="text/event-stream"
            )
        else:
            message = {"message": {"role": "assistant", "content": answer}}
            self.reply(self.answer(message, "chat.completion"), content_type="application/json")

    def answer(self, said: dict[str, Any], kind: str) -> bytes:
        going_on = bool(said.get("delta"))
        choice = {"index": 0, "finish_reason": None if going_on else "stop", **said}
        return json.dumps(
            {"id": "c-1", "object": kind, "created": 1, "model": "small", "choices": [choice], "usage": None}
        ).encode()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    provider = Listening(Provider)
    yield provider.url
    provider.close()


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One MLflow for all tests: litellm's logger keeps to the one that it saw first."""
    before = mlflow.get_tracking_uri()
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    yield
    mlflow.flush_trace_async_logging()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """A new experiment, the active one."""
    name = str(request.node.name)
    mlflow.set_experiment(name)
    return name


@pytest.fixture
def by_openai(url: str) -> Iterator[Ask]:
    mlflow.openai.autolog()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def ask(question: str) -> str:
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": question}])
        return last_trace()

    yield ask
    mlflow.openai.autolog(disable=True)


@pytest.fixture
def by_litellm(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    for name in CALLBACKS:  # litellm keeps MLflow's logger in more lists than autolog(disable=True) clears
        monkeypatch.setattr(litellm, name, list(getattr(litellm, name)))
    mlflow.litellm.autolog()
    where = {"model": "openai/small", "api_base": f"{url}/v1", "api_key": "none", "num_retries": 0}

    def ask(question: str) -> str:
        streamed = question.startswith("Stream")
        messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}]
        reply = litellm.completion(messages=messages, stream=streamed, **where)
        return last_trace() if not streamed else str(len(list(reply)))

    yield ask
    mlflow.litellm.autolog(disable=True)


def last_trace() -> str:
    return str(mlflow.get_last_active_trace_id())


def logged(question: str, **tags: str) -> str:
    """A trace like those of the libraries, without a call."""
    asked = {"messages": [{"role": "user", "content": question}]}
    span = mlflow.start_span_no_context(
        "call", span_type="CHAT_MODEL", inputs=asked, tags=tags, start_time_ns=next(CLOCK) * 1_000_000
    )
    span.end(outputs={"choices": [{"message": {"role": "assistant", "content": f"Answer to {question}"}}]})
    return str(span.trace_id)


def arrived() -> None:
    """Wait until every trace is in the store."""
    mlflow.flush_trace_async_logging()


def thumb(trace_id: str, value: Any, source: AssessmentSource = PERSON, **more: Any) -> str:
    feedback = mlflow.log_feedback(trace_id=trace_id, name="thumbs_up", value=value, source=source, **more)
    return str(feedback.assessment_id)


def rows(service: str, **how: Any) -> list[Row]:
    return list(trace_rows(service, **how))


def read(row: Row) -> dict[str, Any]:
    """What a trace gave, which must be a row."""
    assert isinstance(row.data, dict)
    return row.data


def questions(rows: list[Row]) -> list[str]:
    """The last user message of each row that is a chat."""
    return [row.data["messages"][-2]["content"] for row in rows if not isinstance(row.data, Unreadable)]


def reasons(rows: list[Row]) -> dict[str, tuple[str, str]]:
    return {row.where: (row.data.reason, row.data.detail) for row in rows if isinstance(row.data, Unreadable)}


def test_of_openais_traces_those_with_a_thumb_up_are_pairs(service: str, by_openai: Ask) -> None:
    good, bad, unsaid = by_openai("Good"), by_openai("Bad"), by_openai("Unsaid")
    arrived()
    thumb(good, True)
    thumb(bad, False)
    told = rows(service, feedback="thumbs_up", value="true")

    assert [row.where for row in told] == [f"trace {unsaid}", f"trace {bad}", f"trace {good}"]
    assert told[-1].data == {
        "messages": [{"role": "user", "content": "Good"}, {"role": "assistant", "content": "Answer to Good"}],
        "id": good,
        "source": "traces",
    }
    assert reasons(told) == {
        f"trace {bad}": ("not_satisfactory", "thumbs_up is False, not true"),
        f"trace {unsaid}": ("not_satisfactory", "no thumbs_up"),
    }


def test_litellms_traces_are_read_whether_they_were_streamed_failed_or_called_in_a_function(
    service: str, by_litellm: Ask
) -> None:
    by_litellm("Plain")
    by_litellm("Stream")
    mlflow.trace(by_litellm)("Within")
    with pytest.raises(litellm.BadRequestError):
        by_litellm("Fail")
    arrived()
    told = rows(service)

    assert questions(told) == ["Within", "Stream", "Plain"]
    for row in told[1:]:
        system, user, answer = read(row)["messages"]
        assert system == {"role": "system", "content": "Be short."}
        assert answer == {"role": "assistant", "content": f"Answer to {user['content']}"}
    ((reason, _),) = reasons(told).values()
    assert reason == "failed"


def test_the_latest_feedback_counts_and_a_persons_before_a_judges(service: str) -> None:
    changed, judged, told, taken_back, twice = (logged(f"{n}") for n in range(5))
    arrived()
    thumb(changed, True)
    thumb(changed, False)
    thumb(judged, True, JUDGE)
    thumb(told, True)
    thumb(told, False, JUDGE)
    wrong = thumb(taken_back, True)
    mlflow.override_feedback(trace_id=taken_back, assessment_id=wrong, value=False, source=JUDGE)
    thumb(twice, False)
    thumb(twice, True)

    assert sorted(questions(rows(service, feedback="thumbs_up"))) == ["1", "2", "4"]


def test_feedback_that_failed_or_bears_another_name_is_none(service: str) -> None:
    trace_id = logged("A?")
    arrived()
    thumb(trace_id, None, JUDGE, error=ValueError("the judge was down"))
    mlflow.log_feedback(trace_id=trace_id, name="stars", value=5)

    assert questions(rows(service, feedback="thumbs_up")) == []
    assert questions(rows(service, feedback="stars", value=">=4")) == ["A?"]
    assert questions(rows(service, feedback="Stars", value=">=4")) == []


def test_an_assessment_that_is_no_feedback_counts_too(service: str) -> None:
    trace_id = logged("A?")
    arrived()
    mlflow.log_expectation(trace_id=trace_id, name="reviewed", value="ok")

    assert questions(rows(service, feedback="reviewed", value="OK")) == ["A?"]


def test_a_trace_may_name_its_category(service: str) -> None:
    logged("A?", **{"llamaduo.category": "faq"})
    arrived()

    (row,) = rows(service)
    assert read(row)["category"] == "faq"


def test_a_trace_that_has_not_ended_is_told(service: str) -> None:
    root = mlflow.start_span_no_context("request")
    mlflow.start_span_no_context("call", "CHAT_MODEL", parent_span=root, inputs={"prompt": "A?"}).end(outputs="Yes")
    arrived()
    (told,) = rows(service)
    root.end()

    assert told.data == Unreadable("no_answer", "the trace has not ended")


def test_a_trace_that_failed_after_a_good_call_is_told(service: str) -> None:
    root = mlflow.start_span_no_context("request")
    mlflow.start_span_no_context("call", "CHAT_MODEL", parent_span=root, inputs={"prompt": "A?"}).end(outputs="Yes")
    root.end(status="ERROR")
    arrived()
    (told,) = rows(service)

    assert told.data == Unreadable("failed", "the trace ended with an error")


def test_a_trace_that_ended_before_its_call_is_told(service: str) -> None:
    root = mlflow.start_span_no_context("request")
    mlflow.start_span_no_context("call", "CHAT_MODEL", parent_span=root, inputs={"prompt": "A?"})
    root.end()
    arrived()

    assert [reason for reason, _ in reasons(rows(service)).values()] == ["not_chat"]


def test_a_trace_whose_spans_are_not_all_there_is_told(service: str) -> None:
    whole, lost = logged("whole"), logged("lost")
    arrived()
    with closing(sqlite3.connect(mlflow.get_tracking_uri().removeprefix("sqlite:///"))) as store, store:
        store.execute("DELETE FROM spans WHERE trace_id = ?", (lost,))
    told = rows(service)

    assert reasons(told)[f"trace {lost}"][0] == "not_kept"
    assert told[1].where == f"trace {whole}"
    assert questions(told) == ["whole"]


def test_a_span_of_ones_own_that_says_it_is_a_chat_is_one(service: str) -> None:
    messages = [{"role": "user", "content": "A?"}]
    with mlflow.start_span("answer", span_type="CHAT_MODEL") as span:
        span.set_inputs({"messages": messages})
        span.set_outputs("Yes")
    arrived()
    (told,) = rows(service)

    assert read(told)["messages"] == [*messages, {"role": "assistant", "content": "Yes"}]


def test_the_filter_is_mlflows(service: str) -> None:
    logged("A?", service="faq")
    logged("B?", service="shop")
    arrived()

    assert questions(rows(service, trace_filter="tag.service = 'faq'")) == ["A?"]


@pytest.mark.parametrize(
    "wrong", ["nonsense", "tag.service = faq", "colour.x = 'y'", "status = 'OK' OR status = 'ERROR'"]
)
def test_a_filter_that_mlflow_does_not_understand_is_told_in_one_line(service: str, wrong: str) -> None:
    with pytest.raises(DataError, match=r"tag\.service = 'faq' or") as caught:
        rows(service, trace_filter=wrong)

    assert repr(wrong) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, mlflow.exceptions.MlflowException)


def test_an_experiment_is_named_by_its_id_too(service: str) -> None:
    logged("A?")
    arrived()

    assert questions(rows(mlflow.get_experiment_by_name(service).experiment_id)) == ["A?"]


@pytest.mark.parametrize("wrong", ["my-servise", "12345678"])
def test_an_unknown_experiment_is_told_with_those_that_are_most_like_it(wrong: str) -> None:
    mlflow.set_experiment("my-service")
    with pytest.raises(DataError, match=f"no experiment '{wrong}'") as caught:
        rows(wrong)

    assert "'my-service'" in str(caught.value) or wrong == "12345678"
    assert "; it has " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, mlflow.exceptions.MlflowException)


def test_a_deleted_experiment_is_told_with_the_way_back() -> None:
    experiment_id = mlflow.create_experiment("gone")
    mlflow.delete_experiment(experiment_id)

    with pytest.raises(DataError, match=f"is deleted: `mlflow experiments restore -x {experiment_id}`"):
        rows("gone")


def test_a_server_that_does_not_answer_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://user:planted@127.0.0.1:9")
    try:
        with pytest.raises(StageError, match="MLflow could not be read: ") as caught:
            list(trace_rows("my-service"))
    finally:
        mlflow.set_tracking_uri(before)

    assert "planted" not in str(caught.value)


def test_pages_are_read_as_they_are_asked_for(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "PAGE", 2)
    for number in range(5):
        logged(str(number))
    arrived()
    reading = trace_rows(service)
    first = [next(reading), next(reading)]
    logged("meanwhile")  # moves all others by one place
    arrived()

    assert questions([*first, *reading]) == ["4", "3", "2", "1", "0"]
    assert questions(rows(service)) == ["meanwhile", "4", "3", "2", "1", "0"]


def test_a_limit_counts_chats_and_not_what_is_passed_over(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "PAGE", 2)
    logs = [logged(str(number)) for number in range(6)]
    arrived()
    for number, trace_id in enumerate(logs):
        thumb(trace_id, number % 2 == 0)
    told = rows(service, feedback="thumbs_up", limit=2)

    assert questions(told) == ["4", "2"]
    assert len(told) == 4
