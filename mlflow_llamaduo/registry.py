"""Versions of `llamaduo-<task>` in the MLflow Model Registry, and which of them is served.

Aliases: `challenger` passed the gate, `champion` is served, `previous` was champion before. Every operation may be
repeated: a version is found again by the digest of its adapter, the alignment and its decision. Only a packed folder
that parity has been shown for is registered, and it is that folder.
"""

import json
from functools import cached_property
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from mlflow_llamaduo import __version__
from mlflow_llamaduo.champion import fetch
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.gate import Decision
from mlflow_llamaduo.core.records import Adapter, PairSet, Version
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.evidence import evidence_of
from mlflow_llamaduo.files import write_atomic
from mlflow_llamaduo.parity import Checked
from mlflow_llamaduo.promotion import Promotions, Word
from mlflow_llamaduo.pyfunc_model import content_digest
from mlflow_llamaduo.service_llm.family import told

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string")]),
    outputs=Schema([ColSpec("string")]),
    params=ParamSchema(
        [
            ParamSpec("temperature", "double", 0.0),
            ParamSpec("max_new_tokens", "long", None),
            ParamSpec("seed", "long", None),
        ]
    ),
)


SAME = ("llamaduo.adapter", "llamaduo.alignment", "llamaduo.decision")
"""Tags by which a version is found again: another judge prompt or champion makes other evidence, so another one."""


class Registry:
    """The registered model of one task, as one alignment sees it."""

    def __init__(self, project: Project, alignment: str) -> None:
        self._project = project
        self._alignment = alignment
        self._client = MlflowClient()

    def register(
        self,
        adapter: Adapter,
        scorecard: Scorecard,
        decision: Decision,
        *,
        checked: Checked,
        against: Against,
        train: PairSet,
        run_id: str,
    ) -> Version:
        """The packed adapter as a version with its evidence, logged with the active run; found again if there.

        A version that passed the gate becomes `challenger`, unless a person has rejected it or rolled it back.

        Raises:
            StageError: the packed folder is not the one that was checked.
        """
        name = self._project.registered_model
        tags = {**self._tags(adapter, decision), "llamaduo.parity": str(checked.parity)}
        version = self._find(name, tags)
        if version is None:
            content = _unchanged(checked)
            evidence = evidence_of(
                self._project,
                adapter,
                scorecard,
                decision,
                against,
                parity=checked.parity,
                train=train,
                run_id=run_id,
            )
            write_atomic(content / "evidence.json", json.dumps(evidence, indent=2))
            version = self._create(name, tags, content, run_id)
        if decision.passed:
            Promotions(name).challenge(version.number)
        return version

    def promote(self, version: Version) -> bool:
        """Make it champion and keep the old one as `previous`; under `promotion: review` a person does that.

        Returns:
            True when the version is champion now.

        Raises:
            ConfigError: a person has rejected it, or rolled it back.
            StageError: somebody else promotes at the same time.
        """
        if self._project.promotion != "auto":
            self._client.set_model_version_tag(version.name, str(version.number), "llamaduo.review", "pending")
            return False
        Promotions(version.name).promote(version.number, Word("llamaduo", "it passed its gate", "auto"))
        return True

    @cached_property
    def champion(self) -> tuple[int, Adapter] | None:
        """The version that is served and its adapter, on this machine; None where there is no champion.

        It is looked for once: a champion that changes while a run goes on is not that run's.

        Raises:
            DataError: the champion is not to be had, or was not made by llamaduo.
        """
        name = self._project.registered_model
        number = Promotions(name).alias("champion")
        if number is None:
            return None
        folder = fetch(name, number)
        package = json.loads((folder / "package.json").read_text())
        evidence = json.loads((folder / "evidence.json").read_text())
        return number, Adapter(
            path=str(folder / "adapter"),
            digest=str(evidence["adapter"]["digest"]),
            base_model=package["base_model"],
            base_digest=package["base_digest"],
            train_loss=0.0,
            eval_loss=0.0,
            best_epoch=0.0,
            tokens=0,
            seconds=0.0,
        )

    def _tags(self, adapter: Adapter, decision: Decision) -> dict[str, str]:
        return {
            "llamaduo.task": self._project.task,
            "llamaduo.fingerprint": self._project.fingerprint,
            "llamaduo.alignment": self._alignment,
            "llamaduo.adapter": adapter.digest,
            "llamaduo.base_model": adapter.base_model,
            "llamaduo.judge": self._project.service_llm.judge.model,
            "llamaduo.judge_family": told(self._project.service_llm),
            "llamaduo.decision": str(decision),
        }

    def _find(self, name: str, tags: dict[str, str]) -> Version | None:
        for found in self._client.search_model_versions(f"name = '{name}'"):
            if all(found.tags.get(key) == tags[key] for key in SAME):
                return Version(name, int(found.version), str(found.run_id))
        return None

    def _create(self, name: str, tags: dict[str, str], content: Path, run_id: str) -> Version:
        logged = mlflow.pyfunc.log_model(
            name=self._project.task,
            loader_module="mlflow_llamaduo.pyfunc_model",
            data_path=str(content),
            signature=SIGNATURE,
            pip_requirements=[f"mlflow-llamaduo=={__version__}"],
        )
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self._client.create_model_version(
            name, source=logged.model_uri, run_id=run_id, tags=tags, model_id=logged.model_id
        )
        return Version(name, self._one_of(name, logged.model_uri, int(made.version)), run_id)

    def _one_of(self, name: str, source: str, made: int) -> int:
        """The first version made of a logged model; others go.

        A server that dies between making one and saying so is asked again by MLflow's client, and makes another.
        """
        found = self._client.search_model_versions(f"name = '{name}'")
        first, *others = sorted({made, *(int(version.version) for version in found if version.source == source)})
        for other in others:
            self._client.delete_model_version(name, str(other))
        return first


def _unchanged(checked: Checked) -> Path:
    """The folder, if it is still what was checked: a run may go on much later than it was packed."""
    folder = Path(checked.folder)
    found = content_digest(folder)
    if found != checked.digest:
        raise StageError(
            f"{folder} is not what was checked for parity (it holds {found}, not {checked.digest}): remove the "
            "folder and its .json, and run again"
        )
    return folder
