"""`llamaduo serve`: the application on 127.0.0.1, until Ctrl-C."""

import errno
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from ray import serve as ray_serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from mlflow_llamaduo.champion import champion_number
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.app import application
from mlflow_llamaduo.serving.keys import VARIABLE, Key, keys_file, read_keys


def serve(project: Project, *, port: int, say: Callable[[str], None]) -> None:
    """Serve the champion of a task; returns after SIGINT or SIGTERM.

    Raises:
        ConfigError: the port is in use; the keys cannot be read; there are none, and the host is no loopback.
        DataError: the task has no champion yet.
    """
    host, keys = project.serving.host, keys_of(project)
    if not keys and not _loopback(host):
        raise ConfigError(
            f"serving.host {host} is reached from other machines, and there are no API keys: make one with "
            f"llamaduo keys add --name <who>, or set {VARIABLE}"
        )
    _free(host, port)
    hush()
    number = champion_number(project.registered_model)
    say(f"loading {project.registered_model} version {number}")
    with cluster(), _until_stopped(say):
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        ray_serve.start(
            http_options={"host": host, "port": port},
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
        try:
            ray_serve.run(of_version(project, number), name=project.task, route_prefix="/")
            say(f"{project.task} (version {number}) on http://{host}:{port}/v1/chat/completions; Ctrl-C ends it")
            threading.Event().wait()
        finally:
            # Serve's controller ends itself while its caller waits, and Ray prints that as a failed task.
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                ray_serve.shutdown()


def from_environment() -> Application:
    """The application for `serve run`: the champion of LLAMADUO_TASK (closed_qa) under LLAMADUO_PROFILE (local)."""
    hush()
    project = load(os.environ.get("LLAMADUO_TASK", "closed_qa"), os.environ.get("LLAMADUO_PROFILE", "local"))
    return of_version(project, champion_number(project.registered_model))


def of_version(project: Project, number: int) -> Application:
    """The application for one version of a project's registered model."""
    return application(
        task=project.task,
        name=project.registered_model,
        number=number,
        serving=project.serving,
        keys=keys_of(project),
    )


def keys_of(project: Project) -> tuple[Key, ...]:
    """The keys of `serving.keys`, or of the working folder's file if there is one, else those of LLAMADUO_API_KEYS.

    Raises:
        ConfigError: they cannot be read.
    """
    named = Path(project.serving.keys) if project.serving.keys else keys_file()
    return read_keys(named if project.serving.keys or named.is_file() else None)


def _loopback(host: str) -> bool:
    try:
        return all(ipaddress.ip_address(str(found[4][0])).is_loopback for found in socket.getaddrinfo(host, None))
    except (OSError, ValueError) as error:
        raise ConfigError(f"serving.host {host} is no address of this machine: {error}") from error


def _free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"serving.host {host}, port {port}: {error.strerror}") from error
            raise ConfigError(f"port {port} is in use on {host}: choose another with --port") from error


@contextmanager
def _until_stopped(say: Callable[[str], None]) -> Iterator[None]:
    """Run the block until SIGINT or SIGTERM; both end it in order, also while it is starting."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("stopped")
