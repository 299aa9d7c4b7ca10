"""Traces of the service LLM in production -> rows; traces as MLflow logs openai, anthropic, litellm and langchain.

    experiment, filter -> traces, newest first -> satisfactory? -> `trace_shapes` -> messages

A trace is satisfactory if its feedback of one name has one value. Of several people's the latest counts, and any
person's before an LLM judge's or a program's; one that was overridden does not count. Without a name every trace that
ended well is.

Every trace becomes a row: a passed-over or unusable one too, with its reason, so that the counts add up.
"""

import operator
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mlflow_llamaduo.coverage.rows import Bad, Row, Unreadable, shown
from mlflow_llamaduo.coverage.trace_shapes import Call, chat
from mlflow_llamaduo.errors import DataError, StageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Assessment, Span, Trace, TraceInfo

PAGE = 100
"""Traces in memory at a time; MLflow's own page."""

CATEGORY = "llamaduo.category"
"""The tag of a trace that names its category."""

INVALID = "INVALID_PARAMETER_VALUE"
"""MLflow's code for what it does not understand."""
ORDERS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
COMPARISON = re.compile(r"(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)")


def trace_rows(
    experiment: str, *, trace_filter: str = "", feedback: str = "", value: object = True, limit: int | None = None
) -> Iterator[Row]:
    """The traces of an experiment as rows, read page by page as they are asked for, the newest first.

    Args:
        experiment: name or id, at MLflow's tracking URI.
        trace_filter: MLflow's filter of traces, as `mlflow.search_traces` takes it; empty takes all.
        feedback: name of the feedback or other assessment that says "satisfactory"; empty asks for none.
        value: what it must be, see `satisfies`.
        limit: end after so many chats, at least 1; traces without one do not count.

    Yields:
        `{"messages", "id", "source", "category"}`, the last only if the trace has the tag `llamaduo.category`; or
        `Unreadable` with a reason, `not_satisfactory` for a trace without the feedback.

    Raises:
        DataError: there is no such experiment, or MLflow does not understand the filter.
        StageError: MLflow cannot be read.
    """
    from mlflow import MlflowClient

    chats = 0
    with _reading():
        client = MlflowClient()
        experiment_id = _experiment_id(client, experiment)
        for page in _pages(client, experiment_id, trace_filter):
            left_out = {info.trace_id: _why_not(info, feedback, value) for info in page}
            spans = _spans(client, experiment_id, [key for key, why in left_out.items() if why is None])
            for info in page:
                data = left_out[info.trace_id] or _data(info, spans.get(info.trace_id))
                yield Row(f"trace {info.trace_id}", data)
                chats += not isinstance(data, Unreadable)
                if chats == limit:
                    return


def satisfies(given: object, wanted: object) -> bool:
    """Whether a logged value is the wanted one.

    They are equal as numbers, or as text whatever the case: `true` is True, `5` is 5 and 5.0, `yes` is "Yes". 1 is
    not true: who logs a count does not mean a thumb. A wanted text like `>=4` (or >, <, <=) compares numbers.
    """
    number = _number(given)
    if isinstance(wanted, str) and (bound := COMPARISON.fullmatch(wanted.strip())):
        return number is not None and ORDERS[bound[1]](number, float(bound[2]))
    if number is not None and (other := _number(wanted)) is not None:
        return number == other
    if not isinstance(given, str | bool) or not isinstance(wanted, str | bool):
        return False
    return str(given).strip().casefold() == str(wanted).strip().casefold()


@contextmanager
def _reading() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise StageError(f"MLflow could not be read: {_line(error)}") from error


def _experiment_id(client: "MlflowClient", experiment: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment) or client.get_experiment(experiment)
    except MlflowException as error:
        if error.error_code not in (INVALID, "RESOURCE_DOES_NOT_EXIST"):
            raise
        raise DataError(f"MLflow has no experiment {experiment!r}; {_others(client, experiment)}") from error
    if found.lifecycle_stage != "active":
        raise DataError(
            f"MLflow's experiment {experiment!r} is deleted: `mlflow experiments restore -x {found.experiment_id}` "
            "brings it back"
        )
    return str(found.experiment_id)


def _others(client: "MlflowClient", experiment: str) -> str:
    names = [found.name for found in client.search_experiments(max_results=1000)]
    close = get_close_matches(experiment, names, n=5, cutoff=0)
    return f"it has {', '.join(map(repr, close))}{', ...' if len(names) > 5 else ''} (is MLFLOW_TRACKING_URI right?)"


def _pages(client: "MlflowClient", experiment_id: str, trace_filter: str) -> Iterator[list["TraceInfo"]]:
    """What is known of traces without their spans; a trace comes once."""
    from mlflow.exceptions import MlflowException

    seen: set[str] = set()  # pages are counted from the newest: a trace that comes in meanwhile moves all the others
    token = None
    while True:
        try:
            page = client.search_traces(
                locations=[experiment_id],
                filter_string=trace_filter or None,
                order_by=["timestamp_ms DESC"],
                max_results=PAGE,
                page_token=token,
                include_spans=False,
            )
        except MlflowException as error:
            if not trace_filter or error.error_code != INVALID:
                raise
            raise DataError(
                f"MLflow does not understand the trace filter {trace_filter!r}: {_line(error)}; conditions are like "
                "tag.service = 'faq' or timestamp_ms > 1790000000000, joined by AND"
            ) from error
        infos = [trace.info for trace in page if trace.info.trace_id not in seen]
        seen.update(info.trace_id for info in infos)
        yield infos
        token = page.token
        if not token:
            return


def _spans(client: "MlflowClient", experiment_id: str, trace_ids: list[str]) -> dict[str, list[Call]]:
    """The spans of some traces. MLflow passes over a trace of which a span is missing, so such a one is not in it."""
    if not trace_ids:
        return {}
    ids = ", ".join(f"'{trace_id}'" for trace_id in trace_ids)
    traces: list[Trace] = client.search_traces(
        locations=[experiment_id], filter_string=f"request_id IN ({ids})", max_results=len(trace_ids)
    )
    return {trace.info.trace_id: [_plain(span) for span in trace.data.spans] for trace in traces}


def _plain(span: "Span") -> Call:
    raised = [event.attributes.get("exception.message") for event in span.events if event.name == "exception"]
    return {
        "name": span.name,
        "type": span.span_type,
        "root": span.parent_id is None,
        "ok": span.status.status_code.value == "OK",
        "error": span.status.description or next(filter(None, raised), ""),
        "end": span.end_time_ns or 0,
        "inputs": span.inputs,
        "outputs": span.outputs,
    }


def _why_not(info: "TraceInfo", feedback: str, value: object) -> Unreadable | None:
    if feedback:
        given = _assessment(info.assessments, feedback)
        if given is None:
            return Unreadable("not_satisfactory", f"no {feedback}")
        answer = (given.feedback or given.expectation).value
        if not satisfies(answer, value):
            found = answer if isinstance(answer, int | float) else shown(answer)
            return Unreadable("not_satisfactory", f"{feedback} is {found}, not {value}")
    if str(info.state) == "ERROR":
        return Unreadable("failed", "the trace ended with an error")
    if str(info.state) == "IN_PROGRESS":
        return Unreadable("no_answer", "the trace has not ended")
    return None


def _assessment(assessments: Sequence["Assessment"], name: str) -> "Assessment | None":
    """The one that counts among those of a name: a person's first, then the latest."""
    named = [
        given
        for given in assessments
        if given.name == name and given.valid is not False and (given.feedback or given.expectation)
    ]
    people = [given for given in named if given.source.source_type == "HUMAN"]
    return max(people or named, key=lambda given: given.last_update_time_ms or 0, default=None)


def _data(info: "TraceInfo", spans: list[Call] | None) -> dict[str, Any] | Unreadable:
    try:
        row = {"messages": chat(spans or ()), "id": info.trace_id, "source": "traces"}
    except Bad as bad:
        return Unreadable(bad.reason, bad.detail)
    return {**row, "category": info.tags[CATEGORY]} if CATEGORY in info.tags else row


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _line(error: Exception) -> str:
    """The first line of MLflow's message, without the password that a URI may hold."""
    return re.sub(r"//[^/@\s]+@", "//", str(error).partition("\n")[0]).rstrip(".")
