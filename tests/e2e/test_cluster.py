"""The loop on a real Ray cluster: as a job by `-b ray`, and by RAY_ADDRESS; what is finished is not done again."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from tests.integration.ray_head import Head, ray_head

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SMALL = {
    "projects/closed_qa/duo.yaml": {"coverage": {"test_rows": 2, "dev_rows": 2}, "gate": {"precision_mean": 100}},
    "projects/profiles/local.yaml": {
        "inference": {"max_new_tokens": 8},
        "finetune": {"epochs": 1},
        "limits": {"rounds": 1},
        "baselines": {"few_shot": 0},
    },
}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        with ray_head(Path(folder)) as head:
            yield head


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "projects", folder / "projects")
    shutil.copy(ROOT / "MLproject", folder)
    for name, sections in SMALL.items():
        tree = yaml.safe_load((folder / name).read_text())
        for section, keys in sections.items():
            tree[section] = keys if section == "gate" else {**tree.get(section, {}), **keys}
        (folder / name).write_text(yaml.safe_dump(tree))
    coverage = folder / "projects/closed_qa/coverage.jsonl"
    coverage.write_text("".join(coverage.read_text().splitlines(keepends=True)[:10]))
    return folder


def run(clone: Path, head: Head, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    home = {name: os.environ[name] for name in ("LLAMADUO_CACHE",) if name in os.environ}
    return subprocess.run(
        command,
        cwd=clone,
        env={**head.environment, **home, **environment},
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )


def trained(clone: Path) -> set[str]:
    return {file.name for file in (clone / ".llamaduo/closed_qa/stages/finetune").glob("*.json")}


def test_a_job_aligns_and_the_next_driver_goes_on_from_its_working_folder(head: Head, clone: Path) -> None:
    config = json.dumps({"address": head.api})
    done = run(clone, head, "mlflow", "run", ".", "-b", "ray", "-P", "task=closed_qa", "-c", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped: rounds" in done.stdout
    uri = f"sqlite:///{clone}/mlflow.db"
    client = MlflowClient(uri, uri)
    (own,) = client.search_runs(["0"], "tags.`llamaduo.ray.status` = 'SUCCEEDED'")
    assert own.info.status == "FINISHED"
    assert 0 <= own.data.metrics["judge/precision_mean"] <= 100
    assert client.search_model_versions("name = 'llamaduo-closed_qa'")
    first = trained(clone)
    assert len(first) == 1

    beside = {"RAY_ADDRESS": head.gcs, "RAY_AUTH_MODE": "token"}
    again = run(clone, head, "llamaduo", "run", **beside)
    assert again.returncode == 0, again.stderr
    assert "this alignment is finished" in again.stderr
    assert trained(clone) == first
