"""The Ray cluster that a run works on: the one RAY_ADDRESS names, else a small one of its own.

A cluster of our own inherits this process's environment and sees its files. One that was there before does not: its
workers get what they need by name, and this package itself, so that they run the version that the driver runs. Inside
a job of the Jobs API both came with the job. What Ray cannot bring is what a path names: base models
(LLAMADUO_CACHE) and adapters (LLAMADUO_HOME) are to be on a disk that all machines see.
"""

import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow_llamaduo
from mlflow_llamaduo.errors import ConfigError, StageError

WORKER_ENVIRONMENT = {
    # Hub look-ups are over when workers start: base models are folders by then.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
PASSED_ON = (
    *("HF_TOKEN", "HF_ENDPOINT", "HF_HOME", "LLAMADUO_CACHE", "LLAMADUO_HOME"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    *("MLFLOW_TRACKING_TOKEN", "MLFLOW_S3_ENDPOINT_URL"),
)
"""What workers of another's cluster get from here, where it is set: a replica fetches the champion from MLflow."""
OF_OUR_OWN = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    # On a laptop every millisecond of a core is the model's: Serve looks after itself once a second instead of ten
    # times, tells its metrics every two, and the pieces of answers go to the proxy by gRPC, at a third of the time.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
}
"""Where the environment does not say otherwise; Serve's own processes hear it in a cluster that begins here only."""
ADDRESS = "RAY_ADDRESS"
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for a job's driver: the job's runtime environment, as JSON."""

HOST_AND_PORT = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})")
RAYS_OWN = ("local", "auto")
"""A cluster of our own; whichever runs on this machine."""
LISTENS_WITHIN_S = 10.0


@contextmanager
def cluster() -> Iterator[None]:
    """Connect for the length of the block; a cluster that was started here ends with it.

    Raises:
        ConfigError: RAY_ADDRESS is no address of a cluster, or nobody listens there.
        StageError: what listens there is no cluster, or does not let us in.
    """
    import ray  # a second that the checks before a run need not take

    if ray.is_initialized():
        yield
        return
    address = check_address(os.environ)
    for name, value in OF_OUR_OWN.items():
        os.environ.setdefault(name, value)
    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,  # workers' errors come back as exceptions; their chatter stays in Ray's log folder
            logging_level=logging.ERROR,
            runtime_env=runtime_env(os.environ),
        )
    except (ConnectionError, RuntimeError) as error:
        if address == "local":
            raise
        raise StageError(
            f"{ADDRESS}={address}: no Ray cluster of this version lets us in ({_first_line(error)}). With a token it "
            "wants RAY_AUTH_MODE=token; on one of its machines give host:6379, elsewhere use mlflow run -b ray; for "
            "a cluster of your own unset it"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def runtime_env(environment: Mapping[str, str]) -> dict[str, Any]:
    """What Ray is to give the workers, by where they will run.

    Args:
        environment: of this process.

    Returns:
        Ray's runtime environment. On a cluster of our own with as many OMP threads as we have; on another's Ray
        counts them by the CPUs that a worker is given there.
    """
    if JOB in environment:  # Ray refuses a variable that the job has been given already
        given = json.loads(environment[JOB]).get("runtime_env", {}).get("env_vars", {})
        return {"env_vars": {name: value for name, value in WORKER_ENVIRONMENT.items() if name not in given}}
    if _address(environment) == "local":
        threads = environment.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
        return {"env_vars": {**WORKER_ENVIRONMENT, "OMP_NUM_THREADS": threads}}
    passed = {name: environment[name] for name in PASSED_ON if environment.get(name)}
    return {
        "env_vars": {**WORKER_ENVIRONMENT, **passed},
        "py_modules": [str(Path(mlflow_llamaduo.__file__).parent)],
        "excludes": ["**/__pycache__"],
    }


def check_address(environment: Mapping[str, str]) -> str:
    """RAY_ADDRESS, or `local`, shown to be an address where something listens: Ray itself tries for two minutes.

    Args:
        environment: of this process.

    Raises:
        ConfigError: it is no address of a cluster, or nobody listens there.
    """
    address = _address(environment)
    if found := HOST_AND_PORT.fullmatch(address):
        place = (found["host"].strip("[]"), int(found["port"]))
        try:
            socket.create_connection(place, timeout=LISTENS_WITHIN_S).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"{ADDRESS}={address}: nobody listens there ({error}): start a cluster (ray start --head), or "
                "correct the address; for a cluster of your own unset it"
            ) from error
    elif address not in RAYS_OWN:
        raise ConfigError(
            f"{ADDRESS}={address} is no address of a cluster: give host:6379, or auto for the one on this machine; "
            "for a cluster of your own unset it"
        )
    return address


def _address(environment: Mapping[str, str]) -> str:
    """RAY_ADDRESS, or `local`: not whichever cluster Ray happens to find on this machine.

    Raises:
        ConfigError: it is the address of the Jobs API or of Ray Client.
    """
    address = environment.get(ADDRESS) or "local"
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"{ADDRESS}={address} is the address of Ray's Jobs API: mlflow run . -b ray runs the project there; a "
            "driver on one of the cluster's machines wants host:6379"
        )
    if address.startswith("ray://"):
        raise ConfigError(
            f"{ADDRESS}={address}: through Ray Client a driver shares no disk with its workers; use mlflow run . "
            '-b ray -c \'{"address": "http://<head>:8265"}\', or run on one of the cluster\'s machines'
        )
    return address


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
