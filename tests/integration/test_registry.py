"""Versions and aliases on a real MLflow registry (SQLite)."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.records import Adapter, Message, Pair, PairSet
from mlflow_llamaduo.errors import DataError, StageError
from mlflow_llamaduo.evidence import evidence_of
from mlflow_llamaduo.parity import Checked
from mlflow_llamaduo.promotion import Promotions, Word
from mlflow_llamaduo.pyfunc_model import content_digest, pack, package
from mlflow_llamaduo.registry import Registry
from tests.unit.builders import card, checked, decision, scores

ROOT = Path(__file__).parents[2]
TRAIN = PairSet((Pair((Message("user", "q"),), "a"),))
CARD = scores({"p0": [60.0, 70.0], "p1": [80.0, 20.0]})
AGAINST = Against({"base": card(30, prompts=2), "service_llm": card(90, prompts=2)})


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
    (path / "probes.json").write_text("{}")
    return Adapter(str(path), digest, "team/small", "base", 1.0, 1.0, 1.0, 10, 1.0)


def packed(project: Project, trained: Adapter) -> Checked:
    """What parity was shown for, next to the adapter."""
    folder = Path(trained.path).with_suffix(".packed")
    pack(folder, adapter=Path(trained.path), package=package(project, trained))
    return checked(content_digest(folder), str(folder))


def register(registry: Registry, trained: Adapter, *, passed: bool, content: Checked | None = None) -> int:
    with mlflow.start_run() as run:
        version = registry.register(
            trained,
            CARD,
            decision(passed=passed),
            checked=content or packed(load("closed_qa"), trained),
            against=AGAINST,
            train=TRAIN,
            run_id=run.info.run_id,
        )
        if passed:
            registry.promote(version)
    return version.number


def aliases() -> dict[str, int]:
    found = MlflowClient().get_registered_model("llamaduo-closed_qa").aliases
    return {alias: int(version) for alias, version in found.items()}


def test_a_version_that_failed_is_registered_and_gets_no_alias(project: Project, tmp_path: Path) -> None:
    assert register(Registry(project, "one"), adapter(tmp_path, "a"), passed=False) == 1
    assert aliases() == {}


def test_a_new_champion_leaves_the_old_one_as_previous(project: Project, tmp_path: Path) -> None:
    registry = Registry(project, "one")
    register(registry, adapter(tmp_path, "a"), passed=True)
    register(registry, adapter(tmp_path, "b"), passed=True)
    assert aliases() == {"challenger": 2, "champion": 2, "previous": 1}


def test_registering_and_promoting_again_changes_nothing(project: Project, tmp_path: Path) -> None:
    registry = Registry(project, "one")
    trained = adapter(tmp_path, "a")
    assert [register(registry, trained, passed=True) for _ in range(2)] == [1, 1]
    assert aliases() == {"challenger": 1, "champion": 1}


def test_under_review_a_version_that_passed_waits_for_a_person(project: Project, tmp_path: Path) -> None:
    registry = Registry(project.model_copy(update={"promotion": "review"}), "one")
    register(registry, adapter(tmp_path, "a"), passed=True)
    assert aliases() == {"challenger": 1}
    version = MlflowClient().get_model_version("llamaduo-closed_qa", "1")
    assert version.tags["llamaduo.review"] == "pending"


def test_a_version_that_a_person_rejected_is_no_challenger_again(project: Project, tmp_path: Path) -> None:
    registry = Registry(project.model_copy(update={"promotion": "review"}), "one")
    trained = adapter(tmp_path, "a")
    register(registry, trained, passed=True)
    Promotions("llamaduo-closed_qa").reject(1, Word("bob", "it lies", "rejected"))
    with mlflow.start_run() as run:
        content = packed(project, adapter(tmp_path, "b"))
        again = registry.register(
            trained, CARD, decision(), checked=content, against=AGAINST, train=TRAIN, run_id=run.info.run_id
        )
    assert again.number == 1
    assert aliases() == {}


def test_the_evidence_says_what_decided(project: Project, tmp_path: Path) -> None:
    register(Registry(project, "one"), adapter(tmp_path, "a"), passed=True)
    folder = Path(mlflow.artifacts.download_artifacts("models:/llamaduo-closed_qa/1", dst_path=str(tmp_path / "got")))
    (file,) = folder.rglob("evidence.json")
    evidence = mlflow.artifacts.load_dict(str(file))
    assert evidence["decision"] == "passed"
    (rule,) = evidence["rules"]
    assert rule == {
        **{"figure": "precision_mean", "at_least": 70, "by": "mean", "value": 80.0, "low": 75.0, "high": 85.0},
        **{"prompts": 8, "passed": True, "note": "", "said": "precision_mean 80.0 >= 70"},
    }
    assert [row["response_id"] for row in evidence["scorecard"]["scored"]] == ["p0/0", "p0/1", "p1/0", "p1/1"]
    assert evidence["scorecard"]["figures"]["precision_mean"]["value"] == 57.5
    assert evidence["baselines"]["service_llm"]["figures"]["similarity_mean"]["value"] == 80
    assert evidence["judge_family"] == "offline stand-ins"
    assert evidence["train"] == {"rows": 1, "digest": TRAIN.digest}
    assert evidence["parity"]["passed"] is True
    assert (evidence["parity"]["probes"], evidence["parity"]["trained"]["dtype"]) == (4, "float32")
    assert set(evidence["parity"]["tolerance"]) == {
        "distance",
        "effect",
        "strength",
        "choices",
        "answers",
        "rounding",
    }
    assert str(tmp_path) not in file.read_text(), "a path of this machine in an audit file"


def test_a_version_is_the_folder_that_was_checked_and_says_so(project: Project, tmp_path: Path) -> None:
    trained = adapter(tmp_path, "a")
    content = packed(project, trained)
    register(Registry(project, "one"), trained, passed=False, content=content)

    tags = MlflowClient().get_model_version("llamaduo-closed_qa", "1").tags
    assert tags["llamaduo.parity"] == "passed: distance 0 (4 probes)"
    folder = Path(mlflow.artifacts.download_artifacts("models:/llamaduo-closed_qa/1", dst_path=str(tmp_path / "got")))
    (got,) = folder.rglob("package.json")
    assert content_digest(got.parent) == content.digest
    assert not list(folder.rglob("probes.json")), "dev prompts travel with a version"


@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "package.json"])
def test_what_was_changed_after_the_check_is_not_registered(project: Project, tmp_path: Path, file: str) -> None:
    trained = adapter(tmp_path, "a")
    content = packed(project, trained)
    with (Path(content.folder) / file).open("a") as changed:
        changed.write(" ")

    with pytest.raises(StageError, match="is not what was checked for parity"):
        register(Registry(project, "one"), trained, passed=True, content=content)
    assert not MlflowClient().search_model_versions("name = 'llamaduo-closed_qa'")


def test_the_champion_is_its_adapter_on_this_machine(project: Project, tmp_path: Path) -> None:
    assert Registry(project, "one").champion is None
    register(Registry(project, "one"), adapter(tmp_path, "a"), passed=True)
    champion = Registry(project, "one").champion

    assert champion is not None
    number, found = champion
    assert (number, found.digest, found.base_model, found.base_digest) == (1, "a", "team/small", "base")
    assert (Path(found.path) / "adapter_model.safetensors").read_bytes() == b"a"


def test_evidence_is_json_whatever_was_measured(project: Project, tmp_path: Path) -> None:
    nothing, diverged = scores({}), replace(adapter(tmp_path, "a"), train_loss=float("nan"))
    evidence = evidence_of(
        project,
        diverged,
        nothing,
        decision(),
        Against({"base": nothing}),
        parity=checked().parity,
        train=TRAIN,
        run_id="run",
    )

    assert evidence["adapter"]["train_loss"] is None
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence


def test_another_alignment_with_the_same_adapter_has_a_version_and_evidence_of_its_own(
    project: Project, tmp_path: Path
) -> None:
    """Another judge prompt: the configuration is the same, the judging is not."""
    trained = adapter(tmp_path, "a")
    first = register(Registry(project, "one"), trained, passed=False)
    second = register(Registry(project, "two"), trained, passed=True)

    assert (first, second) == (1, 2)
    tags = MlflowClient().get_model_version("llamaduo-closed_qa", "2").tags
    assert tags["llamaduo.decision"].startswith("passed")


def test_a_champion_whose_files_are_gone_or_strange_is_one_line_with_the_way_out(
    project: Project, tmp_path: Path
) -> None:
    register(Registry(project, "one"), adapter(tmp_path, "a"), passed=True)
    for file in (tmp_path / "mlruns").rglob("evidence.json"):
        file.unlink()

    with pytest.raises(DataError, match="not made by llamaduo; take the alias champion from it"):
        _ = Registry(project, "one").champion
