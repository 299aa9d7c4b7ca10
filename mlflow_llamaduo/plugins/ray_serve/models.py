"""From a model URI to the one version that is meant by it now. Only the model's `MLmodel` file is read here.

Loading a pyfunc unpickles whatever it was saved with: that is done in the replica, and only of a model that the user
has named.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Saved
from mlflow.store.artifact.utils.models import get_model_name_and_version

from mlflow_llamaduo.core.catalogue import CHAMPION
from mlflow_llamaduo.core.text import without_login
from mlflow_llamaduo.errors import ConfigError, DataError
from mlflow_llamaduo.plugins.ray_serve.errors import first_line

PYFUNC = "python_function"
LOADER = "mlflow_llamaduo.pyfunc_model"
"""The loader module of every version that llamaduo registers."""
TASK = "llamaduo.task"
PREFIX = "llamaduo-"


@dataclass(frozen=True, slots=True)
class Model:
    """What is to be deployed.

    `uri` is as it was asked for; `resolved` names the same files for ever (an alias does not), and `number` is the
    registered version, or 0. `task` is that of a version of llamaduo's, else empty.
    """

    uri: str
    resolved: str
    number: int = 0
    task: str = ""

    @property
    def asked_as(self) -> str:
        """What a chat request says for `model`, to be answered by this version; empty where there is no task."""
        alias = self.uri.rpartition("@")[2] if "@" in self.uri else ""
        return self.task if not self.task or alias == CHAMPION else f"{self.task}@{alias or self.number}"


def resolve(uri: str, flavor: str | None = None) -> Model:
    """The model that a URI means now.

    Args:
        uri: as MLflow takes it: models:/, runs:/, a path, remote storage.
        flavor: the one that the user wants; None for the only one that there is here.

    Raises:
        ConfigError: another flavor than python_function.
        DataError: there is no such model, it has no python_function flavor, or a version of llamaduo's is not
            registered.
    """
    if flavor not in (None, "", PYFUNC):
        raise ConfigError(
            f"--flavor {flavor}: ray-serve deploys {PYFUNC}, which nearly all models have; leave it out"
        )
    try:
        name, number = _version(uri)
        resolved = f"models:/{name}/{number}" if number else _absolute(uri)
        saved = Saved.load(resolved)
    except (MlflowException, OSError, ValueError) as error:
        raise DataError(
            f"{uri} is not to be had from {without_login(mlflow.get_tracking_uri())} "
            f"({first_line(error)}): correct the URI, or set "
            "MLFLOW_TRACKING_URI"
        ) from error
    pyfunc = saved.flavors.get(PYFUNC)
    if pyfunc is None:
        raise DataError(f"{uri} has no {PYFUNC} flavor (it has {', '.join(saved.flavors)}): save it with one")
    task = ""
    if pyfunc.get("loader_module") == LOADER:
        if not number:
            raise DataError(
                f"{uri} is a llamaduo model that is not registered: give models:/{PREFIX}<task>/<version>"
            )
        task = MlflowClient().get_model_version(name, str(number)).tags.get(TASK) or name.removeprefix(PREFIX)
    return Model(uri, resolved, number, task)


def _version(uri: str) -> tuple[str, int]:
    """The registered name and version that a URI means; version 0 where it means none."""
    if not uri.startswith("models:/"):
        return "", 0
    found = get_model_name_and_version(MlflowClient(), uri)
    return (str(found[0]), int(found[1])) if len(found) == 2 else ("", 0)


def _absolute(uri: str) -> str:
    """A path is made absolute: a replica's working folder is another."""
    return uri if urlsplit(uri).scheme else str(Path(uri).absolute())
