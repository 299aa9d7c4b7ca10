"""What an ingress counts, in Prometheus' text format: `GET /metrics`.

Labels are tasks and versions of the registry, never what a client has sent. Each ingress has its own counts, and
Prometheus adds them up.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mlflow_llamaduo.serving.protocol import Usage
from mlflow_llamaduo.serving.routing import Route

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SERVED = ("task", "version")


class Meters:
    """The metrics of one ingress."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "llamaduo_requests",
            "Answers and errors, by who answered (champion, canary, named, service_llm) and HTTP status; "
            "499: the client left.",
            (*SERVED, "answered_by", "status"),
            registry=self._registry,
        )
        self._refused = Counter(
            "llamaduo_refused",
            "Requests that came to no model, by HTTP status: 400, 401, 403, 404, 413, 429.",
            ("status",),
            registry=self._registry,
        )
        self._first = Histogram(
            "llamaduo_time_to_first_token_seconds",
            "From when a replica got the request to its first token, waiting for a place included.",
            SERVED,
            buckets=SECONDS,
            registry=self._registry,
        )
        self._seconds = Histogram(
            "llamaduo_answer_seconds",
            "From when a replica got the request to its last token.",
            SERVED,
            buckets=SECONDS,
            registry=self._registry,
        )
        self._rate = Histogram(
            "llamaduo_tokens_per_second",
            "Tokens of one request a second, after its first token.",
            SERVED,
            buckets=RATES,
            registry=self._registry,
        )
        self._tokens = Counter(
            "llamaduo_tokens",
            "Tokens, read (prompt) and written (completion).",
            (*SERVED, "kind"),
            registry=self._registry,
        )
        self._open = Gauge(
            "llamaduo_requests_open", "Requests that wait or are written now.", ("task",), registry=self._registry
        )
        self._lost = Counter(
            "llamaduo_traces_lost", "Sampled traces that MLflow did not take.", registry=self._registry
        )
        self._uncopied = Counter(
            "llamaduo_shadow_lost",
            "Copies for a shadow that were not made: it was too busy, or MLflow away.",
            ("task",),
            registry=self._registry,
        )
        self._version = Gauge(
            "llamaduo_champion_version", "The version that answers for a task.", ("task",), registry=self._registry
        )
        self._behind = Gauge(
            "llamaduo_behind",
            "1 where the registry's champion of a task could not be loaded.",
            ("task",),
            registry=self._registry,
        )

    @contextmanager
    def open(self, task: str) -> Iterator[None]:
        """For the length of the block a request of a task is open."""
        gauge = self._open.labels(task)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def answered(self, route: Route, answered_by: str, status: int) -> None:
        """A request has its answer, or its error."""
        self._requests.labels(*_served(route), answered_by, str(status)).inc()

    def refused(self, status: int) -> None:
        """A request was refused before it came to a model."""
        self._refused.labels(str(status)).inc()

    def lost(self) -> None:
        """A sampled trace could not be kept."""
        self._lost.inc()

    def uncopied(self, task: str) -> None:
        """A copy for the shadow was not made."""
        self._uncopied.labels(task).inc()

    def used(self, route: Route, usage: Usage) -> None:
        """A request was written to its end."""
        served = _served(route)
        self._first.labels(*served).observe(usage.first_s)
        self._seconds.labels(*served).observe(usage.seconds)
        if usage.seconds > usage.first_s and usage.completion_tokens > 1:
            self._rate.labels(*served).observe((usage.completion_tokens - 1) / (usage.seconds - usage.first_s))
        self._tokens.labels(*served, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(*served, "completion").inc(usage.completion_tokens)

    def champions(self, versions: dict[str, int], behind: set[str]) -> None:
        """What answers now."""
        for task, number in versions.items():
            self._version.labels(task).set(number)
            self._behind.labels(task).set(task in behind)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)


def _served(route: Route) -> tuple[str, str]:
    return route.model.task, str(route.pick.number)
