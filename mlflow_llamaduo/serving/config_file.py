"""`llamaduo serve --config FILE`: a Ray Serve configuration file, served here until Ctrl-C.

It is what `serve run FILE` and `serve deploy FILE` read (serve/local.yaml, serve/l4.yaml). Here what is wrong with it
is one line, and said before anything starts.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from ray import serve as ray_serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from mlflow_llamaduo.config import load
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.run import ServeArgs, check_place, service_from, until_stopped
from mlflow_llamaduo.serving.shelf import hurried
from mlflow_llamaduo.yaml_file import read_yaml

OURS = "mlflow_llamaduo.serving.run:from_args"
LOOK_S = 0.5


def serve_file(file: Path, *, port: int | None, say: Callable[[str], None]) -> None:
    """Serve what a Ray Serve configuration file says; returns after SIGINT or SIGTERM.

    Args:
        file: YAML with one application, ours.
        port: instead of the file's.
        say: told a line.

    Raises:
        ConfigError: the file is none of Ray Serve's, or has another application; or as `service_of`.
        DataError: as `service_of`.
        StageError: Ray Serve could not start it.
    """
    config, args = read_file(file)
    hush()
    hurried()
    http = config.http_options
    serving = load(args.tasks[0], args.profile, args.overrides).serving
    check_place(serving.model_copy(update={"host": http.host}), port or http.port)
    service = service_from(args, say)

    def start() -> None:
        _get_global_client().deploy_apps(config)
        _wait(config.applications[0].name)

    until_stopped(service, start, say, host=http.host, port=port or http.port, proxy_location=config.proxy_location)


def read_file(file: Path) -> tuple[ServeDeploySchema, ServeArgs]:
    """The file as Ray Serve has it, and the `args` of its application.

    Raises:
        ConfigError: it cannot be read, or is not one application of ours.
    """
    try:
        config = ServeDeploySchema.model_validate(read_yaml(file))
        ours = [application.import_path == OURS for application in config.applications]
        if ours != [True]:
            raise ConfigError(f"{file}: applications: one with import_path {OURS} is wanted, as in serve/local.yaml")
        return config, ServeArgs.model_validate(config.applications[0].args)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file}: {where}: {first['msg']}") from error


def _wait(name: str) -> None:
    """Until the application runs.

    Raises:
        RuntimeError: it does not.
    """
    while True:
        found = ray_serve.status().applications.get(name)
        if found and found.status == ApplicationStatus.RUNNING:
            return
        if found and found.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise RuntimeError(found.message)
        time.sleep(LOOK_S)
