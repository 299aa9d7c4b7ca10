"""Judged responses as MLflow traces: who reviews a round opens it and reads.

    response -> trace of the round's run: instruction and answer
        reference  -> expectation `expected_response`
        judgements -> feedback `similarity` and `precision` of each judge, with its reasons

A person's correction is a feedback of the same name on the trace. A trace is written once for a run and its tags (the
answers of two baselines have the same ids): one that is there keeps what people have said on it.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

import mlflow
from mlflow.entities import AssessmentError, AssessmentSource, AssessmentSourceType, Expectation, Feedback
from mlflow.entities.trace_location import MlflowExperimentLocation

from mlflow_llamaduo.core.records import Judgement, Response, Unjudged, Verdict
from mlflow_llamaduo.core.text import storable

QUANTITIES = ("similarity", "precision")
DATA = AssessmentSource(AssessmentSourceType.CODE, "llamaduo")
"""Where references are from; MLflow would call it a person."""
PREVIEW = 1000
"""Characters that MLflow keeps of a text for its list of traces."""
AT_ONCE = 100
"""Traces between two flushes. MLflow queues two writes a trace, and drops what comes when 1000 are waiting: four
baselines may leave so many each."""


def log_judged(
    responses: Sequence[Response],
    judgements: Sequence[Judgement],
    *,
    experiment_id: str | None,
    run_id: str,
    tags: Mapping[str, str],
    wait: bool = True,
) -> None:
    """Write each judged response as a trace of the run; those that the run has with these tags are left alone.

    Args:
        responses: those without a judgement are passed over.
        judgements: of one judge or of several.
        experiment_id: where the traces go; None is the run's.
        run_id: the round's run.
        tags: of every trace, beside `llamaduo.response` (the response's id) and `llamaduo.judged`.
        wait: return when MLflow has all of them. A flush takes 2.3 s, nearly all of it waiting.
    """
    own: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        own[judgement.response_id].append(judgement)
    experiment = experiment_id or str(mlflow.get_run(run_id).info.experiment_id)
    written = _written(experiment, run_id, tags)
    fresh = {r.id: r for r in responses if r.id in own and r.id not in written}
    for number, response in enumerate(fresh.values(), 1):
        _write(response, own[response.id], experiment, run_id, tags)
        if number % AT_ONCE == 0 or (wait and number == len(fresh)):
            mlflow.flush_trace_async_logging()


def feedback(name: str, judgements: Sequence[Judgement]) -> Feedback:
    """What one judge says of one response, `similarity` or `precision`: the mean of its verdicts, 0 to 100.

    The rationale has a line for each reason. Metadata: `repeats`, how often the judge was asked, and `scores`, the
    single ones as JSON. Without a verdict the feedback is an error that says why, and has no value.
    """
    verdicts = [j for j in judgements if isinstance(j, Verdict)]
    scores = [float(getattr(verdict, name)) for verdict in verdicts]
    reasons = [_reason(verdict, name) for verdict in verdicts]
    return Feedback(
        name=name,
        value=fmean(scores) if scores else None,
        error=None if scores else AssessmentError("UNJUDGED", _why_not(judgements)),
        source=AssessmentSource(AssessmentSourceType.LLM_JUDGE, judgements[0].judge),
        rationale="\n".join(reason for reason in reasons if reason) or None,
        metadata={"repeats": str(len(judgements)), "scores": json.dumps([_short(score) for score in scores])},
    )


def _written(experiment_id: str, run_id: str, tags: Mapping[str, str]) -> set[str]:
    """Ids of the responses that the run has traces of with these tags: two baselines answer the same prompts."""
    traces = mlflow.search_traces(
        locations=[experiment_id],
        run_id=run_id,
        filter_string="tag.`llamaduo.judged` = 'true'",
        include_spans=False,
        return_type="list",
    )
    own = (trace.info.tags for trace in traces)
    return {found.get("llamaduo.response", "") for found in own if tags.items() <= found.items()}


def _write(
    response: Response, judgements: Sequence[Judgement], experiment_id: str, run_id: str, tags: Mapping[str, str]
) -> None:
    """One trace. What is assessed while it is open goes into the same transaction as the trace."""
    instruction, text, reference = map(storable, (response.instruction, response.text, response.reference))
    by_judge: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        by_judge[judgement.judge].append(judgement)
    destination = MlflowExperimentLocation(experiment_id)
    with mlflow.start_span("response", trace_destination=destination, run_id=run_id) as span:
        span.set_inputs({"instruction": instruction})
        span.set_outputs({"response": text})
        mlflow.update_current_trace(
            tags={**tags, "llamaduo.response": response.id, "llamaduo.judged": "true"},
            request_preview=instruction[:PREVIEW],
            response_preview=text[:PREVIEW],
        )
        mlflow.log_assessment(span.trace_id, Expectation("expected_response", reference, DATA))
        for own in by_judge.values():
            for name in QUANTITIES:
                mlflow.log_assessment(span.trace_id, feedback(name, own))


def _reason(verdict: Verdict, name: str) -> str:
    """A verdict's reason for one score, in a line: it holds both, or is the judge's only word on both."""
    parts = verdict.reason.split(" | ")
    reason = parts[QUANTITIES.index(name)] if len(parts) == len(QUANTITIES) else verdict.reason
    return " ".join(storable(reason).split())


def _why_not(judgements: Sequence[Judgement]) -> str:
    reasons = dict.fromkeys(" ".join(storable(j.reason).split()) for j in judgements if isinstance(j, Unjudged))
    return "; ".join(reasons)


def _short(score: float) -> float | int:
    return int(score) if score.is_integer() else score
