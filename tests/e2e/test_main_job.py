"""The main job as a user runs it, on all of its pairs: about seven minutes, so `make test-all` only."""

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


def test_the_student_beats_its_base_by_ten_points_of_mean_precision(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "projects", tmp_path / "projects")
    shutil.copy(ROOT / "MLproject", tmp_path)
    process = Workspace(tmp_path).start("mlflow", "run", ".", "-P", "task=closed_qa")
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    assert "stopped: passed" in out
    precision = [float(figure) for figure in re.findall(r"^(?:base|round \d+) +(\d+\.\d)", out, re.MULTILINE)]
    assert precision[-1] >= precision[0] + 10
