"""One rate for all processes of a Ray job, on a real local Ray."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.service_llm.rate import Limits
from mlflow_llamaduo.service_llm.shared_rate import SharedTurnstile, turnstile
from mlflow_llamaduo.service_llm.terms import terms

LLM = ServiceModel(
    model="openai/shared", api_base="http://127.0.0.1:9/v1", rpm=600, input_usd_per_mtok=0, output_usd_per_mtok=0
)


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


async def _pass(calls: int) -> list[float]:
    gate = turnstile(terms(LLM), LLM)
    assert isinstance(gate, SharedTurnstile)
    times = []
    for _ in range(calls):
        await gate.admit(0)
        times.append(time.time())
        await gate.told(Limits(), refused=False, unused=0)
    return times


def passed(calls: int) -> list[float]:
    return asyncio.run(_pass(calls))


@pytest.mark.usefixtures("local_ray")
def test_all_processes_of_a_job_share_one_rate() -> None:
    worker = ray.remote(num_cpus=0.5)(passed).options(runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}})
    others = [worker.remote(15) for _ in range(2)]
    times = sorted(passed(15) + [at for other in others for at in ray.get(other)])

    assert len(times) == 45
    fullest = max(sum(1 for at in times if start <= at < start + 1) for start in times)
    assert fullest <= 20, "ten a second for all of them together, and not each (which would be thirty)"


def test_without_ray_the_rate_is_this_process_s_own() -> None:
    assert not isinstance(turnstile(terms(LLM), LLM), SharedTurnstile)
