"""What Ray is told of the workers, by where they run."""

import json
import os

import pytest

from mlflow_llamaduo.cluster import WORKER_ENVIRONMENT, cluster, runtime_env
from mlflow_llamaduo.errors import ConfigError

ELSEWHERE = {"RAY_ADDRESS": "10.0.0.1:6379", "OMP_NUM_THREADS": "8"}


def test_workers_of_our_own_cluster_have_our_threads() -> None:
    assert runtime_env({"OMP_NUM_THREADS": "3"})["env_vars"]["OMP_NUM_THREADS"] == "3"
    assert runtime_env({"RAY_ADDRESS": ""})["env_vars"]["OMP_NUM_THREADS"] == str(os.cpu_count())
    assert "py_modules" not in runtime_env({})


def test_workers_of_another_cluster_get_the_package_and_what_is_named() -> None:
    given = runtime_env(
        {**ELSEWHERE, "HF_TOKEN": "hf-1", "LLAMADUO_CACHE": "", "OPENAI_API_KEY": "sk-1", "PATH": "/"}
    )
    assert given["env_vars"] == {**WORKER_ENVIRONMENT, "HF_TOKEN": "hf-1"}
    assert [path.rpartition("/")[2] for path in given["py_modules"]] == ["mlflow_llamaduo"]


def test_what_a_job_was_given_is_not_said_again() -> None:
    job = {"runtime_env": {"env_vars": {"HF_HUB_OFFLINE": "0", "A": "b"}, "working_dir": "gcs://a.zip"}}
    given = runtime_env({**ELSEWHERE, "HF_TOKEN": "hf-1", "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)})
    assert set(given) == {"env_vars"}, "Ray refuses what the job has too"
    assert set(given["env_vars"]) == set(WORKER_ENVIRONMENT) - {"HF_HUB_OFFLINE"}


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://head", "ray://head:10001"])
def test_an_address_of_something_else_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=r"mlflow run \. -b ray"), cluster():
        pass


@pytest.mark.parametrize(
    "address", ["garbage", "host:port", ":6379", "host:6379/x", "10.0.0.1:6379 ", "anyscale://x"]
)
def test_what_is_no_address_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="is no address of a cluster: give host:6379"), cluster():
        pass
