"""A registered version of llamaduo's as a Serve application: the chat API of `llamaduo serve`.

All that the deployments target knows of serving is in here. The application has the whole task: every version answers
by its name, and a champion that changes is followed.
"""

import os
from collections.abc import Mapping
from typing import Any

from ray.serve import Application

from mlflow_llamaduo.config import load
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.plugins.ray_serve.models import Model
from mlflow_llamaduo.plugins.ray_serve.settings import Settings
from mlflow_llamaduo.plugins.ray_serve.target import loopback, surge
from mlflow_llamaduo.serving.app import application as serving_application
from mlflow_llamaduo.serving.app import resources
from mlflow_llamaduo.serving.keys import VARIABLE
from mlflow_llamaduo.serving.run import service_of
from mlflow_llamaduo.serving.shelf import Shelf


def application(
    model: Model, settings: Settings, host: str, *, ingress: Mapping[str, Any], replica: Mapping[str, Any]
) -> Application:
    """The application for the task of a version.

    Args:
        model: one with a task.
        settings: how many replicas, and what each of them takes.
        host: where Serve listens.
        ingress: the runtime environment of what takes the requests.
        replica: that of what holds the model.

    Raises:
        ConfigError: there is no such task or profile here, or `host` is no loopback and there are no API keys.
        DataError: the task has no champion, or its files are not to be had.
    """
    project = load(model.task, settings.profile or os.environ.get("LLAMADUO_PROFILE", "local"))
    service = service_of([project], Shelf.of_registry())
    if not service.keys and not loopback(host):
        raise ConfigError(
            f"Serve listens on {host}, which other machines reach, and there are no API keys: make one with "
            f"llamaduo keys add --name <who>, or set {VARIABLE}"
        )
    takes = {**resources(service.serving), **settings.resources}
    options = {
        **settings.options,
        "max_surge_percent": surge(settings, takes),
        "ray_actor_options": {**takes, "runtime_env": dict(replica)},
    }
    return serving_application(service, replica=options, runtime_env=ingress)
