"""Where a run keeps what it has finished: below the current folder, or where LLAMADUO_HOME says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.files import working_folder
from mlflow_llamaduo.places import check_working_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("given", [None, ""])
def test_the_working_folder_is_below_the_current_one(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMADUO_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("LLAMADUO_HOME", given)
    assert working_folder() == Path(".llamaduo")


def test_stages_and_replies_are_kept_where_the_variable_says(tmp_path: Path) -> None:
    code = (
        "from mlflow_llamaduo.journal import HOME\n"
        "from mlflow_llamaduo.service_llm.store import REPLIES\n"
        "print(HOME, REPLIES)"
    )
    environment = {**os.environ, "LLAMADUO_HOME": str(tmp_path / "shared"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "shared"), str(tmp_path / "shared/replies.sqlite")]


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("LLAMADUO_HOME", "~/work")
    assert working_folder() == Path("/home/someone/work")


def test_a_uri_is_no_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMADUO_HOME", "s3://bucket/work")
    with pytest.raises(ConfigError, match=r"LLAMADUO_HOME=s3://bucket/work.*mount"):
        check_working_folder()


def test_the_commands_write_nowhere_else(tmp_path: Path) -> None:
    """`llamaduo curate` as a user types it: what it knows of the train file goes to the working folder."""
    rows = '{"messages": [{"role": "user", "content": "%s?"}, {"role": "assistant", "content": "Yes."}]}\n'
    (tmp_path / "new.jsonl").write_text(rows % "Is the sea salty")
    (tmp_path / "train.jsonl").write_text("".join(rows % f"Does the river number {n} reach it" for n in range(20)))
    environment = {**os.environ, "LLAMADUO_HOME": str(tmp_path / "shared"), "PYTHONPATH": str(ROOT)}
    command = "curate --in new.jsonl --train train.jsonl --out kept.jsonl --report report.json"
    subprocess.run(
        [sys.executable, "-m", "mlflow_llamaduo", *command.split()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
    )
    assert list((tmp_path / "shared/curation").glob("*.npz"))
    assert not (tmp_path / ".llamaduo").exists()
