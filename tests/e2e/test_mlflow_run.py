"""`mlflow run .` with no pyenv on the PATH, and what it hands on."""

import re
import shutil

import pytest

from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e


def test_mlflow_run_works_without_pyenv_and_hands_undeclared_parameters_on(workspace: Workspace) -> None:
    assert shutil.which("pyenv", path=workspace.environment["PATH"]) is None
    process = workspace.start("mlflow", "run", ".", "-e", "plan", "-P", "task=closed_qa", "-P", "rows_per_round=40")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert re.search(r"round 1: synthesize +offline/teacher +10 ", out)  # 40 rows at 4 a call


def test_a_parameter_that_is_none_fails_with_the_nearest_name(workspace: Workspace) -> None:
    process = workspace.start("mlflow", "run", ".", "-e", "plan", "-P", "rows_per_rond=40")
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "--rows-per-round" in err
