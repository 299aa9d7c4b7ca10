"""What cannot be written is told before anything starts, and the trial leaves nothing behind."""

import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mlflow_llamaduo import places
from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.config.finetune import STORAGES, FineTune
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.files import to_jsonl
from mlflow_llamaduo.places import (
    check_cache,
    check_out,
    check_storage,
    check_working_folder,
    unwritable,
    write_and_remove,
)
from mlflow_llamaduo.preflight import before_a_run
from mlflow_llamaduo.steps.stages import training_key
from tests.unit.builders import pairs, project

RESPONSE = {"id": "p0/0", "instruction": "Which town?", "reference": "Arn", "response": "Arn"}
STAGES = {
    "coverage": "coverage --out {}",
    "finetune": "finetune --train pairs.jsonl --dev pairs.jsonl --out {}",
    "infer": "infer --in pairs.jsonl --out {}",
    "judge": "judge --in responses.jsonl --out {}",
    "synthesize": "synthesize --in pairs.jsonl --out {}",
    "curate": "curate --in pairs.jsonl --out {}",
    "curate, rejected": "curate --in pairs.jsonl --out kept.jsonl --rejected {}",
    "curate, report": "curate --in pairs.jsonl --out kept.jsonl --report {}",
    "judge-report": "judge-report --in responses.jsonl --out {}",
}


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small clone of the project to run in, with a file `f`."""
    own = tmp_path / "projects"
    (own / "closed_qa").mkdir(parents=True)
    (own / "profiles").mkdir()
    rows = to_jsonl(p.row() for p in pairs(20))
    (own / "closed_qa/coverage.jsonl").write_text(rows)
    (own / "closed_qa/duo.yaml").write_text(yaml.safe_dump({"coverage": {"test_rows": 4, "dev_rows": 2}}))
    (own / "profiles/local.yaml").write_text("base_model: HuggingFaceTB/SmolLM2-135M-Instruct\nlimits: {rounds: 1}")
    (tmp_path / "pairs.jsonl").write_text(rows)
    (tmp_path / "responses.jsonl").write_text(to_jsonl([RESPONSE]))
    (tmp_path / "f").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("LLAMADUO_PROJECTS", "LLAMADUO_HOME", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMADUO_CACHE", str(tmp_path / "cache"))
    return tmp_path


def refusal(command: str) -> str:
    """The one line that a command ends with, and nothing else has happened."""
    before = sorted(Path().rglob("*"))
    result = CliRunner().invoke(cli, command.split())
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert sorted(Path().rglob("*")) == before
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("place", ["f/a.jsonl", "f/deeper/a.jsonl", "/proc/a.jsonl", "/proc/x/a.jsonl"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_output_cannot_be_written_does_not_begin(
    stage: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_llamaduo.coverage.source.collect", None)
    assert f" {place} cannot be written (" in refusal(STAGES[stage].format(place))


def test_a_name_that_is_too_long_is_told(clone: Path) -> None:
    assert "File name too long" in refusal(f"infer --in pairs.jsonl --out new/{'x' * 300}.jsonl")


def test_a_folder_is_no_file_to_write(clone: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out .* cannot be written \(it is a folder\)"):
        check_out(clone)


def test_a_place_that_is_not_there_yet_is_fine_and_is_not_made(clone: Path) -> None:
    check_out(clone / "a/b/c.jsonl", None)
    check_out(Path("c.jsonl"))
    assert not (clone / "a").exists()
    assert not list(clone.glob(".llamaduo*"))


def test_a_link_that_leads_nowhere_is_no_folder(clone: Path) -> None:
    (clone / "link").symlink_to(clone / "nowhere")
    assert "is no folder" in str(unwritable(clone / "link/file"))


@pytest.mark.parametrize("home", ["f", "f/work", "/proc/work", "s3://bucket/work"])
@pytest.mark.parametrize("command", ["run", "plan", *STAGES.values()])
def test_a_working_folder_that_cannot_be_written_is_one_line(
    home: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMADUO_HOME", home)
    assert f"LLAMADUO_HOME={home}" in refusal(command.format("out.jsonl"))


def test_a_current_folder_that_cannot_be_written_says_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    with pytest.raises(ConfigError, match=r"the working folder /proc/.llamaduo .*LLAMADUO_HOME"):
        check_working_folder()


@pytest.mark.parametrize("cache", ["f", "/proc/cache", "s3://bucket/cache"])
@pytest.mark.parametrize(
    "command", ["run", "finetune --train pairs.jsonl --dev pairs.jsonl --out a", STAGES["infer"]]
)
def test_a_cache_that_cannot_be_written_is_one_line(
    cache: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMADUO_CACHE", cache)
    assert f"LLAMADUO_CACHE={cache}" in refusal(command.format("out.jsonl"))


def test_a_model_that_is_in_the_cache_wants_nothing_written(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / "model").mkdir()
    (clone / "model/.digest").touch()
    monkeypatch.setattr(places, "unwritable", lambda path: "it is read only")
    check_cache(clone / "model")
    with pytest.raises(ConfigError, match="read only"):
        check_cache(clone / "other")


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("foo://x", "no storage is known by foo://; known: file, s3, "),
        ("s3a://x", "did you mean 's3'?"),
        ("checkpoints", "give an absolute folder"),
        ("s3://AKIA1:hunter2@bucket/x", "the URL holds a key"),
        ("/proc/xx", "finetune.storage /proc/xx cannot be written from here"),
        ("file:///proc/xx", "finetune.storage file:///proc/xx cannot be written from here"),
    ],
)
def test_a_storage_that_cannot_hold_checkpoints_is_told_before_a_run(storage: str, told: str) -> None:
    line = refusal(f"run --set finetune.storage={storage}")
    assert told in line
    assert "hunter2" not in line


def test_a_stage_that_trains_asks_its_storage_first() -> None:
    command = "finetune --train pairs.jsonl --dev pairs.jsonl --out a --set finetune.storage=/proc/xx"
    assert "finetune.storage /proc/xx cannot be written" in refusal(command)


@pytest.mark.parametrize("form", ["{}/new", "file://{}/new", "abfs://container@account.dfs.core.windows.net/x"])
def test_a_storage_has_nothing_left_in_it(form: str, clone: Path) -> None:
    storage = form.format(clone)
    assert FineTune(storage=storage).storage == storage
    if "abfs" not in form:
        check_storage(storage)
        assert not list(clone.rglob(".llamaduo*"))


def test_what_is_written_to_a_storage_is_removed_again(clone: Path) -> None:
    write_and_remove(f"file://{clone}/new")
    assert list((clone / "new").iterdir()) == []


def test_a_storage_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(ConfigError, match="no answer in 60 s"):
        check_storage("gs://bucket/x")


@pytest.mark.parametrize("scheme", STORAGES)
def test_pyarrow_knows_every_scheme(scheme: str) -> None:
    from pyarrow.fs import FileSystem

    forms = {"file": "file:///folder", "s3": "s3://bucket/x?region=us-east-1"}  # else S3 is asked for the region
    try:
        FileSystem.from_uri(forms.get(scheme, f"{scheme}://c@a.dfs.core.windows.net/x"))
    except (OSError, ValueError) as error:
        assert "Unrecognized filesystem type" not in str(error)


def test_all_that_would_stop_a_run_is_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_llamaduo.inference.vllm_engine.find_spec", lambda name: None)
    monkeypatch.setenv("LLAMADUO_CACHE", "s3://bucket")
    asked = project(
        limits={"rounds": 1},
        inference={"engine": "vllm"},
        finetune={"storage": "/proc/xx"},
        service_llm={"judge": "offline/judge", "other_judges": ["offline/judge"]},
    )
    told = before_a_run(asked)
    assert [line.split()[0] for line in told] == [
        "service_llm.other_judges:",
        "inference.engine:",
        "LLAMADUO_CACHE=s3://bucket:",
        "finetune.storage",
    ]
    monkeypatch.setenv("RAY_ADDRESS", "garbage")
    assert any("RAY_ADDRESS=garbage is no address" in line for line in before_a_run(asked))


def test_another_price_does_not_forget_a_checkpoint() -> None:
    train, dev = pairs(8), pairs(2, "dev")
    key = training_key(train, dev, "base", FineTune())
    assert training_key(train, dev, "base", FineTune(usd_per_hour=4)) == key
    assert training_key(train, dev, "base", FineTune.model_validate({"from_rows": {9: {"epochs": 20}}})) == key
    assert training_key(train, dev, "base", FineTune.model_validate({"from_rows": {8: {"epochs": 20}}})) != key
    assert training_key(train, dev, "base", FineTune(epochs=11)) != key
