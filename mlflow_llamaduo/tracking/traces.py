"""Calls to the service LLM as MLflow traces: what was asked, what came back, for which run, round and stage."""

import time

import mlflow
from mlflow.entities import SpanType

from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply, Request


def trace_call(
    model: str,
    request: Request,
    answer: Reply | Failure,
    purpose: Purpose,
    *,
    experiment_id: str | None,
    run_id: str,
) -> None:
    """Write one trace, linked to the MLflow run; the key is no part of what is known here."""
    round_, _, stage = purpose.stage.rpartition(": ")
    seconds = answer.seconds if isinstance(answer, Reply) else 0.0
    now = time.time_ns()
    span = mlflow.start_span_no_context(
        f"{stage} {model}",
        span_type=SpanType.CHAT_MODEL,
        inputs={"messages": [dict(message) for message in request.messages], "repeat": request.repeat},
        tags={
            "llamaduo.run": purpose.run,
            "llamaduo.round": round_,
            "llamaduo.stage": stage,
            "llamaduo.service_llm": model,
        },
        metadata={"mlflow.sourceRun": run_id},
        experiment_id=experiment_id,
        start_time_ns=now - int(seconds * 1e9),
    )
    span.set_attribute("cost_usd", answer.usd)
    if isinstance(answer, Reply):
        span.set_attribute(
            "mlflow.chat.tokenUsage",
            {
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "total_tokens": answer.input_tokens + answer.output_tokens,
            },
        )
        span.end(outputs={"text": answer.text, "cut": answer.cut}, end_time_ns=now)
    else:
        span.end(outputs={"failure": answer.reason}, status="ERROR", end_time_ns=now)
