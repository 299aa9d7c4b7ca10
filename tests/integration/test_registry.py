"""Versions and aliases on a real MLflow registry (SQLite)."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.core.gate import Decision, GateRule, RuleResult
from mlflow_llamaduo.core.records import Adapter, Message, Pair, PairSet
from mlflow_llamaduo.core.scoring import NOTHING, Scorecard
from mlflow_llamaduo.registry import Registry

ROOT = Path(__file__).parents[2]
TRAIN = PairSet((Pair((Message("user", "q"),), "a"),))
CARD = Scorecard("offline/judge", 2, 4, 4, 0, NOTHING, NOTHING)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("test")
    return load("closed_qa")


def adapter(folder: Path, digest: str) -> Adapter:
    path = folder / digest
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(digest.encode())
    return Adapter(str(path), digest, "team/small", "base", 1.0, 1.0, 1.0, 10, 1.0)


def decision(*, passed: bool) -> Decision:
    return Decision((RuleResult(GateRule("precision_mean", 50), 60.0 if passed else 40.0, passed),))


def register(registry: Registry, trained: Adapter, *, passed: bool) -> int:
    with mlflow.start_run() as run:
        version = registry.register(trained, CARD, decision(passed=passed), train=TRAIN, run_id=run.info.run_id)
        if passed:
            registry.promote(version)
    return version.number


def aliases() -> dict[str, int]:
    found = MlflowClient().get_registered_model("llamaduo-closed_qa").aliases
    return {alias: int(version) for alias, version in found.items()}


def test_a_version_that_failed_is_registered_and_gets_no_alias(project: Project, tmp_path: Path) -> None:
    assert register(Registry(project), adapter(tmp_path, "a"), passed=False) == 1
    assert aliases() == {}


def test_a_new_champion_leaves_the_old_one_as_previous(project: Project, tmp_path: Path) -> None:
    registry = Registry(project)
    register(registry, adapter(tmp_path, "a"), passed=True)
    register(registry, adapter(tmp_path, "b"), passed=True)
    assert aliases() == {"challenger": 2, "champion": 2, "previous": 1}


def test_registering_and_promoting_again_changes_nothing(project: Project, tmp_path: Path) -> None:
    registry = Registry(project)
    trained = adapter(tmp_path, "a")
    assert [register(registry, trained, passed=True) for _ in range(2)] == [1, 1]
    assert aliases() == {"challenger": 1, "champion": 1}


def test_under_review_a_version_that_passed_waits_for_a_person(project: Project, tmp_path: Path) -> None:
    registry = Registry(project.model_copy(update={"promotion": "review"}))
    register(registry, adapter(tmp_path, "a"), passed=True)
    assert aliases() == {"challenger": 1}
    version = MlflowClient().get_model_version("llamaduo-closed_qa", "1")
    assert version.tags["llamaduo.review"] == "pending"


def test_the_evidence_says_what_decided(project: Project, tmp_path: Path) -> None:
    register(Registry(project), adapter(tmp_path, "a"), passed=True)
    folder = Path(mlflow.artifacts.download_artifacts("models:/llamaduo-closed_qa/1", dst_path=str(tmp_path / "got")))
    (file,) = folder.rglob("evidence.json")
    evidence = mlflow.artifacts.load_dict(str(file))
    assert evidence["decision"] == "passed"
    assert evidence["rules"] == [{"figure": "precision_mean", "at_least": 50, "value": 60.0, "passed": True}]
    assert evidence["train"] == {"rows": 1, "digest": TRAIN.digest}
    assert str(tmp_path) not in file.read_text(), "a path of this machine in an audit file"
