"""The application of some projects: for `llamaduo serve`, until Ctrl-C, and for Serve's own configuration files."""

import errno
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve as ray_serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import Project, Serving, load
from mlflow_llamaduo.core.catalogue import CHAMPION, Model, Pick
from mlflow_llamaduo.errors import ConfigError, DataError, StageError
from mlflow_llamaduo.inference.engine import ADAPTER_CONFIG, adapter_rank
from mlflow_llamaduo.pyfunc_model import read_package
from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.app import application
from mlflow_llamaduo.serving.keys import VARIABLE, Key, keys_file, read_keys
from mlflow_llamaduo.serving.service import Service
from mlflow_llamaduo.serving.shelf import Shelf, hurried

NAME = "llamaduo"
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class ServeArgs(BaseModel):
    """`args` of the application in a Serve configuration file: tasks, the profile, and any key of the configuration.

    Without them LLAMADUO_TASK (closed_qa; several with commas between) and LLAMADUO_PROFILE (local) say it.
    """

    model_config = ConfigDict(extra="forbid")
    tasks: list[str] = Field(
        default_factory=lambda: os.environ.get("LLAMADUO_TASK", "closed_qa").split(","), min_length=1
    )
    profile: str = Field(default_factory=lambda: os.environ.get("LLAMADUO_PROFILE", "local"))
    overrides: dict[str, Any] = {}


def from_args(args: ServeArgs) -> Application:
    """The application for `serve run` and `serve deploy`.

    Raises:
        ConfigError, DataError: as `service_of`.
    """
    hush()
    hurried()
    return application(service_from(args))


def service_from(args: ServeArgs, say: Callable[[str], None] = lambda _: None) -> Service:
    """The service that a configuration file's `args` name.

    Raises:
        ConfigError, DataError: as `service_of`.
    """
    projects = [load(task, args.profile, args.overrides) for task in args.tasks]
    return service_of(projects, Shelf.of_registry(), say)


def serve_projects(projects: Sequence[Project], *, port: int, say: Callable[[str], None]) -> None:
    """Serve the champions of tasks that share a base; returns after SIGINT or SIGTERM.

    Raises:
        ConfigError: as `check_place`; or the champions have several bases.
        DataError: a task has no champion yet, or neither MLflow nor the cache knows it.
    """
    check_place(projects[0].serving, port)
    hush()
    hurried()
    serve(service_of(projects, Shelf.of_registry(), say), port=port, say=say)


def check_place(serving: Serving, port: int) -> None:
    """Whether a service may listen where it is to: asked before anything takes time.

    Raises:
        ConfigError: the port is in use; the keys cannot be read; or there are none, and the host is no loopback.
    """
    if not keys_of(serving) and not _loopback(serving.host):
        raise ConfigError(
            f"serving.host {serving.host} is reached from other machines, and there are no API keys: make one with "
            f"llamaduo keys add --name <who>, or set {VARIABLE}"
        )
    _free(serving.host, port)


def serve(service: Service, *, port: int, say: Callable[[str], None]) -> None:
    """Run a service on its host; returns after SIGINT or SIGTERM.

    Raises:
        StageError: Ray Serve could not start it.
    """

    def start() -> None:
        ray_serve.run(application(service), name=NAME, route_prefix="/", logging_config=QUIET)

    until_stopped(service, start, say, host=service.serving.host, port=port)


def until_stopped(
    service: Service, start: Callable[[], None], say: Callable[[str], None], *, host: str, port: int, **options: Any
) -> None:
    """Ray Serve with an application; returns after SIGINT or SIGTERM.

    Args:
        service: what the application is of.
        start: starts it, and returns when it runs.
        say: told a line.
        host: where Ray Serve listens.
        port: the same.
        options: more of `ray.serve.start`.

    Raises:
        StageError: it did not start.
    """
    with cluster(), _until_a_signal(say):
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        ray_serve.start(http_options={"host": host, "port": port}, logging_config=QUIET, **options)
        try:
            try:
                start()
            except RuntimeError as error:
                raise StageError(f"the service did not start: {_why()}; Ray's log has more of it") from error
            say(f"{', '.join(service.names)} on http://{host}:{port}/v1/chat/completions; Ctrl-C ends it")
            threading.Event().wait()
        finally:
            # Serve's controller ends itself while its caller waits, and Ray prints that as a failed task.
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                ray_serve.shutdown()


def _why() -> str:
    """What Ray Serve says of deployments that did not start: the last line of each traceback."""
    told = [d.message for found in ray_serve.status().applications.values() for d in found.deployments.values()]
    lines = [[line.strip() for line in message.splitlines() if line.strip()] for message in told]
    return "; ".join(sorted({of[-1] for of in lines if of})) or "it does not say why"


def service_of(projects: Sequence[Project], shelf: Shelf, say: Callable[[str], None] = lambda _: None) -> Service:
    """The service for the tasks of some projects; the first one's `serving` holds for all.

    Raises:
        ConfigError: the champions have several bases, or the keys cannot be read.
        DataError: a task has no champion yet, its files are not to be had, or neither MLflow nor the cache knows it.
    """
    names = {project.task: project.registered_model for project in projects}
    catalogue, away = shelf.seen(names)
    if away:
        say(f"MLflow is away ({away}): what is in the cache is served, and a new champion once it is back")
    champions = {task: _champion(model) for task, model in catalogue.models.items()}
    folders = {}
    for task, pick in champions.items():
        say(f"{task}: {pick.name} version {pick.number}")
        folders[task] = shelf.folder(pick)
    packages = {task: read_package(folder) for task, folder in folders.items()}
    if len({package.base_digest for package in packages.values()}) > 1:
        bases = ", ".join(f"{task} {package.base_model}" for task, package in packages.items())
        raise ConfigError(f"one service has one base, and these tasks have several ({bases}): start one for each")
    configs = [folder / "adapter" / ADAPTER_CONFIG for folder in folders.values()]
    ranks = [adapter_rank(config.read_text()) for config in configs if config.is_file()]
    return Service(
        names=names,
        shelf=shelf,
        first=next(iter(champions.values())),
        serving=projects[0].serving,
        keys=keys_of(projects[0].serving),
        projects={project.task: project for project in projects},
        lora_rank=max([*ranks, *(project.finetune.lora_rank for project in projects)]),
    )


def _champion(model: Model) -> Pick:
    pick = model.pick(CHAMPION)
    if pick is None:
        raise DataError(
            f"{model.name} has no champion in MLflow: run `llamaduo run` until its gate passes, "
            "or give a version the alias champion (mlflow ui, Models)"
        )
    return pick


def keys_of(serving: Serving) -> tuple[Key, ...]:
    """The keys of `serving.keys`, or of the working folder's file if there is one, else those of LLAMADUO_API_KEYS.

    Raises:
        ConfigError: they cannot be read.
    """
    named = Path(serving.keys) if serving.keys else keys_file()
    return read_keys(named if serving.keys or named.is_file() else None)


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
def _until_a_signal(say: Callable[[str], None]) -> Iterator[None]:
    """Run the block until SIGINT or SIGTERM; both end it in order, also while it is starting."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("stopped")
