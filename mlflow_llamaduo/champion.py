"""What is served of a task, out of the MLflow Model Registry: its versions and aliases, and a version's files."""

from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.core.catalogue import Model
from mlflow_llamaduo.errors import DataError

PAGE = 1000
DECISION = "llamaduo.decision"
"""A tag of every version that llamaduo has made: only these are served."""


def look(task: str, name: str) -> Model:
    """The versions of a registered model that llamaduo has made, and the aliases; two requests or a few.

    Raises:
        MlflowException: MLflow is not to be reached, or has no such model.
    """
    client = MlflowClient()
    aliases = {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
    versions: dict[int, int] = {}
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=PAGE, page_token=token)
        versions |= {int(v.version): int(v.creation_timestamp) for v in page if DECISION in v.tags}
        token = page.token
        if not token:
            return Model(task, name, aliases, versions)


def version_tag(name: str, number: int, tag: str) -> str | None:
    """A tag of a version, or None.

    Raises:
        MlflowException: MLflow is not to be reached, or has no such version.
    """
    found: str | None = MlflowClient().get_model_version(name, str(number)).tags.get(tag)
    return found


def write_version_tag(name: str, number: int, tag: str, value: str) -> None:
    """Set a tag of a version.

    Raises:
        MlflowException: MLflow is not to be reached, or has no such version.
    """
    MlflowClient().set_model_version_tag(name, str(number), tag, value)


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
