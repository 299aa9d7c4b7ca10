"""The champion of a task, out of the MLflow Model Registry."""

from pathlib import Path
from typing import Any

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
        DataError: the version's files are not to be had, or it was not made by llamaduo.
    """
    try:
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}"))
    except (MlflowException, OSError) as error:
        why = " ".join(str(error).split())[:160]
        raise DataError(
            f"the files of {name} version {number} are not to be had ({why}): put them back, or take the alias "
            "champion from that version"
        ) from error
    packages = sorted(folder.rglob("package.json"))
    if len(packages) != 1 or not (packages[0].parent / "evidence.json").is_file():
        raise DataError(
            f"{name} version {number} has no package.json and evidence.json: it was not made by llamaduo; take the "
            "alias champion from it"
        )
    return packages[0].parent


def fetch_evidence(name: str, number: int) -> dict[str, Any]:
    """`evidence.json` of a version, as JSON values; nothing else of it is fetched: an adapter may be 200 MB.

    Raises:
        DataError: it is not to be had, or the version was not made by llamaduo.
    """
    version = f"models:/{name}/{number}"
    try:
        for folder in mlflow.artifacts.list_artifacts(artifact_uri=f"{version}/data"):
            for file in mlflow.artifacts.list_artifacts(artifact_uri=f"{version}/{folder.path}"):
                if file.path.endswith("/evidence.json"):
                    found: dict[str, Any] = mlflow.artifacts.load_dict(f"{version}/{file.path}")
                    return found
    except (MlflowException, OSError, ValueError) as error:  # no JSON is a ValueError
        why = " ".join(str(error).split())[:160]
        raise DataError(f"evidence.json of {name} version {number} is not to be had ({why})") from error
    raise DataError(f"{name} version {number} has no evidence.json: its files are gone, or llamaduo did not make it")
