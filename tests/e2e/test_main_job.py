"""The main jobs as a user runs them, on all of their pairs: minutes each, so `make test-all` only."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Workspace

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("LLAMADUO_TEST_ALL" not in os.environ, reason="make test-all runs it"),
]


@pytest.mark.parametrize("task", ["closed_qa", "summarization", "classification", "coding"])
def test_the_student_beats_its_base_by_ten_points_of_mean_precision(task: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "projects", tmp_path / "projects")
    shutil.copy(ROOT / "MLproject", tmp_path)
    process = Workspace(tmp_path).start("mlflow", "run", ".", "-P", f"task={task}")
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    assert "stopped: passed" in out
    precision = [float(figure) for figure in re.findall(r"^(?:base|round \d+) +(\d+\.\d)", out, re.MULTILINE)]
    assert precision[-1] >= precision[0] + 10
