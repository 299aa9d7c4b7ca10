"""The load of a task out of MLflow's traces."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.tracking.usage import used


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[str]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield mlflow.create_experiment("support")
    mlflow.set_tracking_uri(before)


def trace(experiment: str, tokens: tuple[int, int] | None) -> None:
    span = mlflow.start_span_no_context("chat", experiment_id=experiment)
    if tokens:
        usage = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
        span.set_attribute("mlflow.chat.tokenUsage", usage)
    span.end()


def test_tokens_of_the_last_days_are_a_mean_day(experiment: str) -> None:
    for tokens in ((1_000_000, 200_000), (3_000_000, 0), None):
        trace(experiment, tokens)
    mlflow.flush_trace_async_logging()

    workload, traces = used("support", 2)
    assert traces == 2
    assert (workload.input_mtok_per_day, workload.output_mtok_per_day) == pytest.approx((2.0, 0.1))


def test_an_experiment_that_is_not_there_or_says_no_tokens_is_one_line(experiment: str) -> None:
    with pytest.raises(DataError, match="no experiment of that name"):
        used("nothere", 7)
    trace(experiment, None)
    mlflow.flush_trace_async_logging()
    with pytest.raises(DataError, match="no trace of the last 7 days says how many tokens"):
        used("support", 7)
