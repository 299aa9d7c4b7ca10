"""What a service knows of the registry and has fetched from it, on disk: it starts and serves while MLflow is down.

    <folder>/<registered model>/model.json              versions and aliases as they were seen last
    <folder>/<registered model>/<version>-<made>/       a version's files, whole or not there at all

An exported folder is a shelf too, one that is never looked up anywhere: it has the base beside it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.base_models.resolve import cache_folder
from mlflow_llamaduo.champion import fetch, look
from mlflow_llamaduo.core.catalogue import Catalogue, Model, Pick
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import folder_atomic, remove, write_atomic
from mlflow_llamaduo.pyfunc_model import Package, base_of

MODEL = "model.json"
BASE = "base"
KEPT = 32
"""Versions of a model that stay on disk; of more, those that were not loaded for longest are removed."""


def hurried() -> None:
    """Have MLflow give up after seconds, in this process: what is cached is served meanwhile."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of versions; `live` is whether MLflow is asked for what is not there."""

    root: str
    live: bool

    @staticmethod
    def of_registry() -> "Shelf":
        """The one of the registry that MLflow uses here, in the user's cache folder."""
        uri = mlflow.get_registry_uri()
        where = uri if uri.startswith(("http://", "https://", "databricks")) else f"{uri} {Path.cwd()}"
        name = hashlib.sha256(where.encode()).hexdigest()[:16]
        return Shelf(str((cache_folder() / "served" / name).absolute()), live=True)

    def look(self, names: Mapping[str, str]) -> Catalogue:
        """What the registry has now; it is kept.

        Args:
            names: registered models by task.

        Raises:
            MlflowException: MLflow is not to be reached, or does not know one of them.
        """
        models = {task: look(task, name) for task, name in names.items()}
        for model in models.values():
            self.keep(model)
        return Catalogue(models)

    def keep(self, model: Model) -> None:
        """Write down what is known of a model."""
        text = json.dumps(model.row(), indent=1)
        file = self._of(model.name) / MODEL
        if not file.is_file() or file.read_text() != text:
            write_atomic(file, text)

    def stored(self, names: Mapping[str, str]) -> Catalogue:
        """What was known of the registry when it was seen last.

        Raises:
            DataError: it was never seen from here, or what was written is not readable.
        """
        models = {}
        for task, name in names.items():
            file = self._of(name) / MODEL
            try:
                models[task] = Model.of(json.loads(file.read_text()))
            except FileNotFoundError:
                raise DataError(f"{name} is not in the cache {file.parent}: MLflow is needed once") from None
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(f"{file} is not as llamaduo writes it ({error}): remove it") from error
        return Catalogue(models)

    def seen(self, names: Mapping[str, str]) -> tuple[Catalogue, str]:
        """What the registry has now, or what it had; and why it could not be asked, or nothing.

        Raises:
            DataError: neither is known.
        """
        if not self.live:
            return self.stored(names), ""
        try:
            return self.look(names), ""
        except MlflowException as error:
            why = " ".join(str(error).split())[:200]
            try:
                return self.stored(names), why
            except DataError as unknown:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise DataError(
                        f"MLflow does not know {' and '.join(names.values())}: run `llamaduo run` until its gate "
                        f"passes, or set MLFLOW_TRACKING_URI to where that was ({why})"
                    ) from error
                raise DataError(f"{unknown}; it says: {why}") from error

    def folder(self, pick: Pick) -> Path:
        """A version's files, fetched if they are not here yet.

        Raises:
            DataError: they are not to be had, or llamaduo did not make the version.
        """
        target = Path(self.root, pick.key)
        if not target.is_dir():
            if not self.live:
                raise DataError(f"{pick.name} version {pick.number} is not in {self.root}")
            fetched = fetch(pick.name, pick.number)
            with folder_atomic(target) as part:
                shutil.copytree(fetched, part, dirs_exist_ok=True)
            self._prune(target)
        if self.live:  # an exported folder may be on a disk that nobody writes to
            target.touch()
        return target

    def base(self, package: Package) -> Path:
        """The folder of the base that a version was trained on.

        Raises:
            BaseModelError: it is not to be had, or has other files.
        """
        own = Path(self.root, BASE)
        return own if own.is_dir() else base_of(package)

    def _of(self, name: str) -> Path:
        return Path(self.root, Pick(name, 0, 0).key).parent

    def _prune(self, new: Path) -> None:
        others = [folder for folder in new.parent.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
        for folder in sorted(others, key=lambda f: -f.stat().st_mtime)[KEPT:]:
            remove(folder)
