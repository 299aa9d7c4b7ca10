"""A sample of what was asked and answered as MLflow traces, redacted: tomorrow's coverage dataset.

Written by a thread of its own, never on a request's way. Where MLflow is away, or slower than requests come, traces
are lost, and counted. `coverage.source: traces:<experiment>` reads them (docs/how-to/capture.md).
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import SpanType
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.core.records import Message, Pair
from mlflow_llamaduo.core.redact import redact
from mlflow_llamaduo.serving.answering import Answered

WAITING = 256
"""Traces that wait to be written; more are lost."""
log = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Told:
    """One answer to tell of: the body as the client got it, and when it was asked, in nanoseconds since 1970."""

    answered: Answered
    body: Mapping[str, Any]
    began_ns: int


def experiment(task: str) -> str:
    """The MLflow experiment of a task's traces."""
    return f"llamaduo-{task}-served"


class Traces:
    """Keeps a share of each task's answers, in a while: those that wait when the ingress ends are not kept.

    Args:
        shares: from 0 to 1, by task.
        lost: told of every trace that could not be kept.
    """

    def __init__(self, shares: Mapping[str, float], lost: Callable[[], None]) -> None:
        self._shares = {task: share for task, share in shares.items() if share}
        self._lost = lost
        self._waiting: queue.Queue[Told] = queue.Queue(WAITING)
        self._experiments: dict[str, str] = {}
        if self._shares:
            threading.Thread(target=self._run, name="llamaduo-traces", daemon=True).start()

    def wanted(self, task: str) -> bool:
        """Whether the next answer of a task is one of the sample."""
        return random.random() < self._shares.get(task, 0.0)  # noqa: S311 - nobody's secret

    def keep(self, told: Told) -> None:
        """Write it, in a while."""
        try:
            self._waiting.put_nowait(told)
        except queue.Full:
            self._lost()

    def _run(self) -> None:
        while True:
            told = self._waiting.get()
            try:
                self._write(told)
            except MlflowException as error:
                self._lost()
                log.warning("llamaduo: a trace is lost: %s", " ".join(str(error).split())[:200])

    def _write(self, told: Told) -> None:
        asked, body = told.answered.asked, dict(told.body)
        messages = tuple(Message(message.role, message.text) for message in asked.request.messages)
        choices = []
        shown = messages
        for choice in body["choices"]:
            pair, _ = redact(Pair(messages, choice["message"]["content"]))
            shown = pair.prompt
            choices.append({**choice, "message": {**choice["message"], "content": pair.response}, "logprobs": None})
        task = asked.route.model.task
        span = mlflow.start_span_no_context(
            f"chat {told.answered.by}",
            span_type=SpanType.CHAT_MODEL,
            inputs={
                "model": asked.request.model,
                "messages": [{"role": m.role, "content": m.content} for m in shown],
            },
            tags={
                "llamaduo.task": task,
                "llamaduo.version": "" if told.answered.service_llm else str(asked.route.pick.number),
                "llamaduo.answered_by": told.answered.by,
                "llamaduo.route": told.answered.how,
                "llamaduo.completion": body["id"],
            },
            experiment_id=self._experiment(task),
            start_time_ns=told.began_ns,
        )
        usage = body["usage"]
        span.set_attribute(
            "mlflow.chat.tokenUsage",
            {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
            },
        )
        span.end(outputs={**body, "choices": choices}, end_time_ns=max(time.time_ns(), told.began_ns + 1))

    def _experiment(self, task: str) -> str:
        if task not in self._experiments:
            client, name = MlflowClient(), experiment(task)
            found = client.get_experiment_by_name(name)
            self._experiments[task] = found.experiment_id if found else client.create_experiment(name)
        return self._experiments[task]
