"""The command line's edge: what a wrong word costs is one clear line and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

import mlflow_llamaduo
from mlflow_llamaduo import __version__
from mlflow_llamaduo.__main__ import main
from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.files import to_jsonl
from tests.unit.builders import pairs

PACKAGE = Path(mlflow_llamaduo.__file__).parent
PAID = ("--service-llm", "gpt-4o", "--api-base", "http://127.0.0.1:9/v1")
RESPONSE = {"id": "p0/0", "instruction": "Which town?", "reference": "Arn", "response": "Arn"}
HEAVY = ("mlflow", "ray", "torch", "transformers", "litellm", "pandas", "scipy")


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small clone of the project to run in; no key is set."""
    root = tmp_path / "projects"
    write(root / "closed_qa" / "coverage.jsonl", to_jsonl(p.row() for p in pairs(20)))
    write(root / "closed_qa" / "duo.yaml", yaml.safe_dump({"gate": 70, "coverage": {"test_rows": 4, "dev_rows": 2}}))
    write(root / "profiles" / "local.yaml", "base_model: HuggingFaceTB/SmolLM2-135M-Instruct\nlimits: {rounds: 1}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMADUO_PROJECTS", raising=False)
    for name in ("OPENAI_API_KEY", "X_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def llamaduo(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def refusal(*arguments: str) -> str:
    """What a user is told who asked for something that cannot be: a few lines, and exit code 2."""
    result = llamaduo(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    return result.stderr


def test_an_unknown_task_is_one_line_that_names_the_nearest() -> None:
    expected = "llamaduo: unknown task 'closed_aq'; did you mean 'closed_qa'?; known: closed_qa\n"

    assert refusal("run", "--task", "closed_aq") == expected


def test_a_bad_gate_is_one_line_that_says_what_a_gate_is() -> None:
    (line,) = refusal("run", "--gate", "high").splitlines()

    assert line.startswith("llamaduo: command line: gate: expected a number or figure=number,...")


def test_a_missing_key_is_one_line_that_names_the_variable(clone: Path) -> None:
    (line,) = refusal("run", "--service-llm", "openai/gpt-4o").splitlines()

    assert line == "llamaduo: openai/gpt-4o needs a key: set the environment variable OPENAI_API_KEY"
    assert not (clone / ".llamaduo").exists()
    assert not (clone / "mlruns").exists()


def test_every_bad_coverage_row_is_a_line_with_file_and_number(clone: Path) -> None:
    rows = write(clone / "rows.jsonl", '{"messages": []}\n\nno JSON\n')
    few, told, first, second = refusal("run", "--coverage", "rows.jsonl").splitlines()

    assert "0 pairs are too few" in few
    assert f"{rows}: 2 rows" in told
    assert "rejected: 1 " in told
    assert first.startswith(f"llamaduo: {rows}:1: ")
    assert second.startswith(f"llamaduo: {rows}:3: not JSON: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "rank=8"], "command line: unknown key rank"),
        (["--set", "finetune.epoch=8"], "did you mean 'epochs'?"),
        (["--set", "finetune"], "--set finetune: expected KEY=VALUE"),
        (["--gate", "70", "--set", "gate.judged_share=95"], "gate"),
        (["--rounds", "0"], "limits.rounds: "),
        (["--budget-usd", "-1"], "limits.budget_usd: "),
        (["--promotion", "now"], "promotion: "),
        (["--profile", "locla"], "did you mean 'local'?"),
        (["--coverage", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--set", "coverage.test_rows=19"], "20 pairs are too few"),
        (["--service-llm", "openai/unheard-of", "--api-base", "http://here/v1"], "price"),
        (["--service-llm", "gpt4o"], "did you mean 'gpt-4o'?"),
        (["--service-llm", "claude-3-sonnet"], "switched off by its provider on 2025-07-21: take claude-sonnet-5.5"),
        (["--service-llm", "gpt-4o", "--rpm", "0"], "service_llm.judge.rpm: "),
        (
            ["--service-llm", "gemini/gemini-3.8-flash", "--set", "service_llm.judge.batch=true"],
            "batch is for openai",
        ),
        ([*PAID, "--set", "limits.ask_above_usd=0.01"], "this is likely to cost"),
        (["--rounds", "many"], "'many' is not a valid integer"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_whatever_cannot_be_used_is_told_before_anything_starts(clone: Path, arguments: list[str], told: str) -> None:
    assert told in refusal("run", *arguments)
    assert not (clone / ".llamaduo").exists()


@pytest.mark.parametrize(
    ("stage", "option"),
    [
        ("coverage", "--base-model"), ("finetune", "--rounds"), ("infer", "--judge-repeats"), ("judge", "--epochs"),
        ("synthesize", "--gate"), ("judge-report", "--source"), ("doctor", "--budget-usd"), ("serve", "--promotion"),
    ],
)  # fmt: skip
def test_a_command_refuses_what_it_would_make_no_use_of(stage: str, option: str) -> None:
    assert f"No such option '{option}'" in refusal(stage, option, "1")
    assert option in llamaduo("run", "--help").output


def test_all_problems_are_told_at_once() -> None:
    lines = refusal("plan", "--rounds", "0", "--epochs", "0", "--gate", "101", "--set", "x=1").splitlines()

    assert len(lines) == 4
    assert any("precision_mean: a number" in line and "similarity_mean: a number" in line for line in lines)
    assert all(line.startswith("llamaduo: command line: ") for line in lines)


@pytest.mark.parametrize("option", ["--base-model", "--base_model"])
def test_options_may_be_written_with_hyphens_or_as_mlflow_hands_them_on(option: str) -> None:
    result = llamaduo("plan", option, "google/gemma-2b", "--rows_per_round", "20")

    assert result.exit_code == 0, result.output
    assert "base model google/gemma-2b" in result.stdout


def test_vllm_that_is_not_installed_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("mlflow_llamaduo.inference.vllm_engine.find_spec", lambda name: None)

    assert "inference.engine: vllm wants the package vllm" in refusal("run", "--set", "inference.engine=vllm")


def test_a_value_keeps_its_underscores() -> None:
    assert "task closed_qa" in llamaduo("plan", "--task", "closed_qa").stdout


BASELINES = [("service_llm:", "answer"), ("service_llm:", "judge"), ("base:", "judge"), ("few_shot:", "judge")]


def test_a_plan_costs_nothing_and_says_what_a_run_would(clone: Path) -> None:
    result = llamaduo("plan", "--rounds", "2", "--service-llm", "openai/gpt-4o")

    assert result.exit_code == 0, result.output
    assert "pairs: 14 train, 2 dev, 4 test" in result.stdout
    assert [line.split()[:2] for line in result.stdout.splitlines() if " openai/gpt-4o " in line] == [
        *([name, stage] for name, stage in BASELINES),
        ["round", "0:"],
        ["round", "1:"],
        ["round", "1:"],
    ]
    assert "before a run: openai/gpt-4o needs a key" in result.stderr
    assert not (clone / ".llamaduo").exists()


def test_a_command_line_value_equal_to_the_default_wins_over_the_profile() -> None:
    assert llamaduo("plan").stdout.count(": judge") == 1 + 3  # a round, and three baselines
    assert llamaduo("plan", "--rounds", "5").stdout.count(": judge") == 5 + 3


def test_a_plan_warns_of_what_a_run_would_stop_at() -> None:
    told = llamaduo("plan", *PAID, "--set", "limits.ask_above_usd=0.01").stderr
    assert "a run needs --yes: it is likely to cost more than limits.ask_above_usd (0.01)" in told


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("inference.engine=vllm", "inference.engine: vllm wants the package vllm"),
        ("finetune.storage=/proc/xx", "finetune.storage /proc/xx cannot be written from here"),
        ("service_llm.other_judges=offline/judge", "service_llm.other_judges: "),
    ],
)
def test_a_plan_says_what_a_run_would_be_refused_for(
    setting: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_llamaduo.inference.vllm_engine.find_spec", lambda name: None)
    result = llamaduo("plan", "--set", setting)
    assert result.exit_code == 0, result.output
    assert f"llamaduo: before a run: {told}" in result.stderr


@pytest.mark.parametrize("yes", [["--yes"], ["--yes", "true"]])
def test_a_dear_step_begins_with_a_word_only(clone: Path, yes: list[str]) -> None:
    write(clone / "responses.jsonl", to_jsonl([RESPONSE]))
    step = (
        "judge",
        "--in",
        "responses.jsonl",
        "--out",
        "verdicts.jsonl",
        *PAID,
        "--set",
        "service_llm.judge.retries=0",
    )
    assert "add --yes" in refusal(*step, "--set", "limits.ask_above_usd=0.0001")
    assert not (clone / "verdicts.jsonl").exists()

    result = llamaduo(*step, "--set", "limits.ask_above_usd=0.0001", "--repeats", "1", *yes)
    assert result.exit_code == 1, result.output
    assert "1 of 1 judgings without a verdict" in result.stderr  # nobody listens on port 9
    assert "no judging has a verdict" in result.stderr


def test_the_presets_are_listed_with_price_limits_and_date() -> None:
    listed = llamaduo("doctor", "--presets").stdout
    assert "gpt-4o" in listed
    assert "off since 2025-07-21: take claude-sonnet-5.5" in listed


def test_the_doctor_finds_the_stand_ins_well_and_a_model_without_a_key_not() -> None:
    assert llamaduo("doctor").exit_code == 0
    sick = llamaduo("doctor", "--service-llm", "gpt-4o")
    assert sick.exit_code == 1
    assert "needs a key: set the environment variable OPENAI_API_KEY" in sick.stdout


# The stages that need neither Ray nor a model


def test_the_coverage_stage_writes_the_three_parts(clone: Path) -> None:
    result = llamaduo("coverage", "--out", "out")

    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    rows = {name: (clone / "out" / f"{name}.jsonl").read_text().splitlines() for name in ("train", "dev", "test")}
    assert {name: len(lines) for name, lines in rows.items()} == {"train": 14, "dev": 2, "test": 4}


def test_the_judge_stage_adds_verdicts_to_rows(clone: Path) -> None:
    write(clone / "responses.jsonl", to_jsonl([RESPONSE, {**RESPONSE, "id": "p0/1", "response": "Bel"}]))
    result = llamaduo("judge", "--in", "responses.jsonl", "--out", "verdicts.jsonl", "--judge-repeats", "2")

    assert result.exit_code == 0, result.output
    right, wrong = (json.loads(line) for line in (clone / "verdicts.jsonl").read_text().splitlines())
    assert right | RESPONSE == right
    assert (right["precision"], wrong["precision"], len(right["verdicts"])) == (100, 0, 2)


def test_the_judge_stage_reads_whatever_text_the_infer_stage_writes(clone: Path) -> None:
    strange = {**RESPONSE, "response": "Arn\u2028Bel\x85\v\f\x1c"}
    write(clone / "responses.jsonl", to_jsonl([strange]))
    result = llamaduo("judge", "--in", "responses.jsonl", "--out", "verdicts.jsonl")

    assert result.exit_code == 0, result.output
    (judged,) = (clone / "verdicts.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    assert json.loads(judged)["response"] == strange["response"]


BAD_LINES = [
    b"no JSON",
    b"[]",
    b'{"id": "x"}',
    b'{"response": "\xff"}',
    b'{"a": ' + b"[" * 100_000,
    json.dumps({**RESPONSE, "response": "cut \ud83d"}).encode(),
]


@pytest.mark.parametrize("line", BAD_LINES, ids=["no JSON", "no row", "no text", "no UTF-8", "too deep", "surrogate"])
def test_a_bad_row_for_the_judge_is_told_with_file_and_line(clone: Path, line: bytes) -> None:
    (clone / "responses.jsonl").write_bytes(json.dumps(RESPONSE).encode() + b"\n" + line + b"\n")

    (told,) = refusal("judge", "--in", "responses.jsonl", "--out", "verdicts.jsonl").splitlines()
    assert told.startswith("llamaduo: responses.jsonl:2: ")


def test_every_bad_row_for_the_judge_is_told_and_not_just_the_first(clone: Path) -> None:
    write(clone / "responses.jsonl", "no JSON\n[]\n")

    assert len(refusal("judge", "--in", "responses.jsonl", "--out", "verdicts.jsonl").splitlines()) == 2


def test_the_synthesis_stage_writes_new_pairs(clone: Path) -> None:
    write(clone / "seeds.jsonl", to_jsonl(p.row() for p in pairs(3)))
    result = llamaduo("synthesize", "--in", "seeds.jsonl", "--out", "new.jsonl", "--rows-per-round", "10")

    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (clone / "new.jsonl").read_text().splitlines()]
    assert 5 <= len(rows) <= 10
    assert {row["source"] for row in rows} == {"synthetic/1"}


def test_synthesis_without_a_seed_is_a_refusal(clone: Path) -> None:
    write(clone / "seeds.jsonl", "")

    assert refusal("synthesize", "--in", "seeds.jsonl", "--out", "new.jsonl")


# The program


def loaded_by(code: str) -> str:
    """Which heavy libraries a fresh process has loaded after some code, run where this package is."""
    code += f"\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert loaded_by("import mlflow_llamaduo.cli") == "[]"


def test_checking_before_a_run_loads_nothing_heavy(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(clone / "projects"))
    imports = "from mlflow_llamaduo.config import load\nfrom mlflow_llamaduo.preflight import check"

    assert loaded_by(f"{imports}\ncheck(load('closed_qa'))") == "[]"


def test_a_missing_dependency_is_told_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "mlflow_llamaduo.cli")
    monkeypatch.setitem(sys.modules, "click", None)

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"llamaduo: click is not installed in {sys.prefix}.\n")


def test_the_version_is_told() -> None:
    assert __version__ in llamaduo("--version").stdout
