"""run_local(): a cluster and a Serve of its own around one model, until Ctrl-C."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from mlflow_llamaduo.cluster import ADDRESS, runtime_env
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.plugins.ray_run import say
from mlflow_llamaduo.plugins.ray_serve.applications import Description, deploy, deployed
from mlflow_llamaduo.plugins.ray_serve.models import Model
from mlflow_llamaduo.plugins.ray_serve.settings import Settings
from mlflow_llamaduo.plugins.ray_serve.target import start_serve


def serve_here(name: str, model: Model, settings: Settings) -> None:
    """Deploy on a Ray of this process; returns after SIGINT or SIGTERM, when all of it has ended.

    Raises:
        ConfigError: this process is connected to a cluster, or the port is in use.
        DeploymentError: the model does not start.
    """
    from ray import serve

    with _until_stopped(), _own_cluster():
        host, _ = start_serve(settings.http_host, settings.http_port)
        try:
            deploy(Description.of(name, model, settings), settings, host=host, timeout_s=settings.timeout_s)
            say(f"{model.resolved} is {name} at {deployed()[name].url}; Ctrl-C ends it")
            threading.Event().wait()
        finally:
            # Serve's controller ends itself while its caller waits, and Ray prints that as a failed task.
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                serve.shutdown()


@contextmanager
def _own_cluster() -> Iterator[None]:
    """Ray for the length of the block, whatever RAY_ADDRESS says."""
    import ray

    if ray.is_initialized():
        raise ConfigError("run-local starts a cluster of its own, and this process is in one: call ray.shutdown()")
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env=runtime_env(_without_address(os.environ)),
    )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _without_address(environment: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for name, value in environment.items() if name != ADDRESS}


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Run the block until SIGINT or SIGTERM; both end it in order, also while it is starting."""
    if threading.current_thread() is threading.main_thread():  # the only one that may have handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("stopped")
