"""What judges and people said of a run's responses, read back from its MLflow traces.

    run id -> traces of its responses, page by page -> Judged (scores by judge, labels of people)

A judged response is a trace linked to the run, with the tags `llamaduo.judged` and `llamaduo.response`; the judge's
scores are feedback named `similarity` and `precision`. A person corrects one by an override, or adds feedback of that
name. The judge's own score is then marked as no longer valid in MLflow; here it still is what the judge said, and the
correction is what a person says. Values are what anybody may have typed: one that is no score is told, never guessed.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Assessment, Trace
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.core.records import Response
from mlflow_llamaduo.core.trust import QUANTITIES, Judged, Scores
from mlflow_llamaduo.errors import DataError, StageError
from mlflow_llamaduo.service_llm.replies import points

PAGE = 100
"""Traces in memory at a time; MLflow's own page."""

JUDGED, RESPONSE, REFERENCE = "llamaduo.judged", "llamaduo.response", "expected_response"
"""The tags of a judged response's trace, and the expectation that holds its reference."""
BASELINE = "llamaduo.baseline"
"""The tag of an answer that a run was compared with, on the run of the whole alignment."""

Tell = Callable[[str], object]


def judged_responses(run_id: str, tell: Tell) -> Iterator[Judged]:
    """The judged responses of a run, the newest first; one that was written twice comes twice.

    Args:
        run_id: of a round, at MLflow's tracking URI.
        tell: told, once for each, why a trace or a value could not be used.

    Raises:
        DataError: MLflow has no such run, or the run has no judged response.
        StageError: MLflow cannot be read.
    """
    with _reading():
        client = MlflowClient()
        experiment_id = _experiment_id(client, run_id)
        found = False
        for ids in _pages(client, experiment_id, run_id):
            found = found or bool(ids)
            for trace in _traces(client, experiment_id, ids, tell):
                judged = _judged(trace, tell)
                if judged is not None:
                    yield judged
    if not found:
        raise DataError(
            f"run {run_id} has no judged responses of its own (traces with the tag {JUDGED}): name the run of one "
            "round, not of the whole alignment; rounds of versions that wrote no traces have none"
        )


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        first = re.sub(r"//[^/@\s]+@", "//", str(error).partition("\n")[0])  # a URI may hold a password
        raise StageError(f"MLflow could not be read: {first}") from error


def _experiment_id(client: MlflowClient, run_id: str) -> str:
    try:
        return str(client.get_run(run_id).info.experiment_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise DataError(f"MLflow has no run {run_id!r} (is MLFLOW_TRACKING_URI right?)") from error


def _pages(client: MlflowClient, experiment_id: str, run_id: str) -> Iterator[list[str]]:
    """Ids of traces; each once, though a trace that is written meanwhile moves all the others."""
    seen: set[str] = set()
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment_id],
            run_id=run_id,
            filter_string=f"tag.`{JUDGED}` = 'true'",
            order_by=["timestamp_ms DESC"],
            max_results=PAGE,
            page_token=token,
            include_spans=False,
        )
        ours = [trace for trace in page if BASELINE not in trace.info.tags]  # several models under the same ids
        ids = [trace.info.trace_id for trace in ours if trace.info.trace_id not in seen]
        seen.update(ids)
        yield ids
        token = page.token
        if not token:
            return


def _traces(client: MlflowClient, experiment_id: str, ids: list[str], tell: Tell) -> list[Trace]:
    """The traces with their spans. MLflow passes over one of which a span is missing: that is told."""
    if not ids:
        return []
    wanted = ", ".join(f"'{trace_id}'" for trace_id in ids)
    traces: list[Trace] = client.search_traces(
        locations=[experiment_id], filter_string=f"request_id IN ({wanted})", max_results=len(ids)
    )
    by_id = {trace.info.trace_id: trace for trace in traces}
    for _ in range(len(ids) - len(by_id)):
        tell("a trace whose spans MLflow does not have")
    return [by_id[trace_id] for trace_id in ids if trace_id in by_id]


def _judged(trace: Trace, tell: Tell) -> Judged | None:
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    response_id = trace.info.tags.get(RESPONSE, "")
    instruction, text = _text(root and root.inputs, "instruction"), _text(root and root.outputs, "response")
    if not response_id or instruction is None or text is None:
        tell(f"a trace without the tag {RESPONSE}, or without instruction and response")
        return None
    given = [each for each in trace.info.assessments if each.feedback and each.name in QUANTITIES]
    return Judged(
        response_id,
        Response(response_id, 0, instruction, _reference(trace), text, 0),
        _by_judge([each for each in given if each.source.source_type == "LLM_JUDGE"], tell),
        {quantity: _labels([each for each in given if each.name == quantity], tell) for quantity in QUANTITIES},
    )


def _text(data: Any, field: str) -> str | None:
    value = data.get(field) if isinstance(data, dict) else None
    return value if isinstance(value, str) else None


def _reference(trace: Trace) -> str:
    given = [each for each in trace.info.assessments if each.expectation and each.name == REFERENCE]
    newest = max(given, key=_age, default=None)
    value = newest.expectation.value if newest else None
    return value if isinstance(value, str) else ""


def _by_judge(given: list[Assessment], tell: Tell) -> dict[str, Scores]:
    """Of a judge's feedback the newest of each name; an override by a person does not make it unsaid."""
    newest: dict[str, dict[str, Assessment]] = {}
    for each in sorted(given, key=_age):
        newest.setdefault(each.source.source_id or "unnamed judge", {})[each.name] = each
    scores: dict[str, Scores] = {}
    for name, own in newest.items():
        similarity, precision = (_scores(own[q], tell) if q in own else () for q in QUANTITIES)
        judgings = max(map(_repeats, own.values()))
        usable = max(len(similarity), len(precision))
        scores[name] = Scores(similarity, precision, max(0 if usable else 1, judgings - usable))
    return scores


def _repeats(given: Assessment) -> int:
    """How often the judge was asked, if the feedback says so."""
    said = str((given.metadata or {}).get("repeats", ""))
    return int(said) if re.fullmatch(r"[0-9]{1,4}", said) else 0


def _scores(given: Assessment, tell: Tell) -> tuple[float, ...]:
    """Those of the single judgings where the feedback holds them, else its value alone."""
    if given.feedback.error or given.feedback.value is None:
        return ()
    try:
        single = json.loads((given.metadata or {}).get("scores", "null"))
    except (ValueError, RecursionError):
        single = None
    scores = [points(score) for score in single] if isinstance(single, list) else [points(given.feedback.value)]
    usable = tuple(score for score in scores if score is not None)
    for _ in range(len(scores) - len(usable)):
        tell("a judge's score that is no number from 0 to 100")
    return usable


def _labels(given: list[Assessment], tell: Tell) -> tuple[float, ...]:
    """What people say, one value a person: their newest that was not overridden."""
    people = {each.source.source_id: each for each in sorted(given, key=_age) if _by_person(each)}
    values = [points(each.feedback.value) for each in people.values()]
    usable = tuple(value for value in values if value is not None)
    for _ in range(len(values) - len(usable)):
        tell("a person's feedback that is no number from 0 to 100")
    return usable


def _by_person(given: Assessment) -> bool:
    """An override in Python without a source is logged as CODE's; nobody but a person overrides a judge."""
    source = given.source.source_type
    return given.valid is not False and (source == "HUMAN" or (bool(given.overrides) and source != "LLM_JUDGE"))


def _age(given: Assessment) -> int:
    """When it was last changed by somebody: being overridden does not count as a change."""
    return int(given.last_update_time_ms or 0)
