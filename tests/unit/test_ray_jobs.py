"""A job's log over a connection that breaks, and a job that is gone."""

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.job_submission import JobStatus

from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.plugins import ray_jobs

GONE = RuntimeError("Request failed with status code 404: Job llamaduo-1 does not exist.")


class Cluster:
    """A cluster whose connection breaks after so many pieces of the log, attempt by attempt; then it holds."""

    def __init__(self, log: list[str], breaks: list[int], ends: JobStatus = JobStatus.SUCCEEDED) -> None:
        self._log, self._breaks, self._ends = log, list(breaks), ends
        self.stopped = False

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        after = self._breaks.pop(0) if self._breaks else None
        for number, piece in enumerate(self._log):
            if number == after:
                raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
            yield piece

    def get_job_status(self, job_id: str) -> JobStatus:
        return JobStatus.RUNNING if self._breaks and not self.stopped else self._ends

    def stop_job(self, job_id: str) -> bool:
        self.stopped = True
        return True


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_jobs, "EVERY_S", 0.0)
        yield


@given(log=st.lists(st.text(max_size=5), max_size=6), breaks=st.lists(st.integers(0, 6), max_size=4))
def test_every_character_comes_once_however_often_the_connection_breaks(log: list[str], breaks: list[int]) -> None:
    shown: list[str] = []
    assert ray_jobs.follow(Cluster(log, breaks), "llamaduo-1", shown.append) is JobStatus.SUCCEEDED
    assert "".join(shown) == "".join(log)


def test_a_cluster_out_of_reach_for_long_is_given_up_and_the_job_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "PATIENCE_S", 0.0)
    cluster = Cluster(["a"], [0] * 100)
    with pytest.raises(StageError, match="the job may go on: attach"):
        ray_jobs.follow(cluster, "llamaduo-1", str)
    assert not cluster.stopped


def test_a_job_that_the_cluster_has_forgotten_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgotten(*_: object) -> JobStatus:
        raise GONE

    monkeypatch.setattr(Cluster, "get_job_status", forgotten)
    with pytest.raises(StageError, match="does not know job llamaduo-1"):
        ray_jobs.follow(Cluster([], []), "llamaduo-1", str)
    with pytest.raises(StageError, match="does not know job llamaduo-1"):
        ray_jobs.stop(Cluster([], []), "llamaduo-1")


def test_stopping_waits_for_the_end_and_no_longer_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_jobs.stop(Cluster([], [], JobStatus.STOPPED), "llamaduo-1") is JobStatus.STOPPED
    monkeypatch.setattr(ray_jobs, "STOPS_WITHIN_S", 0.0)
    with pytest.raises(StageError, match="ray job stop llamaduo-1"):
        ray_jobs.stop(Cluster([], [], JobStatus.RUNNING), "llamaduo-1")
