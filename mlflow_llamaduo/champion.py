"""The champion of a task, out of the MLflow Model Registry."""

from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.errors import DataError


def champion_number(name: str) -> int:
    """The version that is served.

    Raises:
        DataError: no version has the alias champion.
    """
    try:
        return int(MlflowClient().get_model_version_by_alias(name, "champion").version)
    except MlflowException as error:
        raise DataError(
            f"{name} has no champion in {mlflow.get_registry_uri()}: run `llamaduo run` until its gate passes, or "
            "give a version the alias champion (mlflow ui, Models)"
        ) from error


def fetch(name: str, number: int) -> Path:
    """The folder with the files of a version.

    Raises:
        DataError: the version was not made by llamaduo.
    """
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}"))
    packages = sorted(folder.rglob("package.json"))
    if len(packages) != 1:
        raise DataError(f"{name} version {number} holds no package.json: it was not made by llamaduo")
    return packages[0].parent
