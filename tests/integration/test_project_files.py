"""MLproject, python_env.yaml and constraints.txt as MLflow and pip read them."""

import re
import tomllib
from pathlib import Path

import yaml
from mlflow.projects._project_spec import load_project
from mlflow.utils.environment import _PythonEnv
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_the_project_has_main_and_one_entry_point_for_each_stage() -> None:
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert {"main", "coverage", "finetune", "infer", "judge", "synthesize"} <= set(entry_points)


def test_mlflow_builds_no_environment_for_the_project() -> None:
    # With an environment type MLflow 3.17 takes its virtualenv manager, which needs pyenv (ADR 0002).
    assert load_project(str(ROOT)).env_type is None


def test_the_environment_file_is_the_project_itself_against_the_constraints() -> None:
    environment = _PythonEnv.from_yaml(ROOT / "python_env.yaml")
    assert environment.dependencies == ["-c constraints.txt", "-e ."]
    assert "python" not in yaml.safe_load((ROOT / "python_env.yaml").read_text())


def test_every_dependency_is_pinned_to_a_version_that_its_range_allows() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split("\n") if re.match(r"\S+==", line)
    )
    pinned = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[requirement.name.lower().replace("_", "-")]), line
