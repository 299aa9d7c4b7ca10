"""Stage 1 through the command line: sources, categories, redaction, the report and the memory of the split."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.config import load
from mlflow_llamaduo.files import to_jsonl
from mlflow_llamaduo.preflight import redaction
from tests.unit.builders import pair, pairs

DUO = {
    "category": "closed_qa",
    "gate": 70,
    "base_model": "base",
    "coverage": {"test_rows": 4, "dev_rows": 2, "categories": ["Answer it"]},
}


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMADUO_PROJECTS", raising=False)
    for file, tree in (("closed_qa/duo.yaml", DUO), ("profiles/local.yaml", {})):
        (tmp_path / "projects" / file).parent.mkdir(parents=True)
        (tmp_path / "projects" / file).write_text(yaml.safe_dump(tree))
    return tmp_path


def llamaduo(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def covered(*arguments: str) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """The rows of each side, and the report."""
    result = llamaduo("coverage", "--out", "coverage.jsonl", *arguments)
    assert result.exit_code == 0, result.output
    sides: dict[str, list[dict[str, Any]]] = {}
    for line in Path("coverage.jsonl").read_text().splitlines():
        sides.setdefault(json.loads(line)["split"], []).append(json.loads(line))
    return sides, json.loads(Path(".llamaduo/closed_qa/coverage/report.json").read_text())


def write(name: str, rows: list[Any]) -> None:
    if name.endswith(".csv"):
        with Path(name).open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["prompt", "completion", "category"])
            table.writerows([p.instruction, p.response, p.category] for p in rows)
    else:
        Path(name).write_text(to_jsonl(p.row() for p in rows))


def test_every_format_gives_the_same_rows_and_sides() -> None:
    rows = list(pairs(20, category="Answer it"))
    write("rows.jsonl", rows)
    write("rows.csv", rows)
    from_lines, lines = covered("--source", "rows.jsonl")
    from_table, table = covered("--source", "rows.csv")

    assert from_lines == from_table
    assert {side: len(found) for side, found in from_lines.items()} == {"train": 14, "dev": 2, "test": 4}
    assert (lines["shapes"], table["shapes"]) == ({"messages": 20}, {"prompt/completion": 20})
    assert {**lines, "source": "", "shapes": {}} == {**table, "source": "", "shapes": {}}


def test_rows_of_another_category_are_counted_and_the_tasks_own_get_its_name() -> None:
    mine, others = list(pairs(12, category="answer_it")), list(pairs(5, "other", category="Brainstorm"))
    write("rows.jsonl", [*mine, *others, *pairs(3, "bare")])
    sides, report = covered("--source", "rows.jsonl")

    assert {row["category"] for rows in sides.values() for row in rows} == {"closed_qa"}
    assert (report["rows"], report["kept"], report["rejected"]) == (20, 15, {"other_category": 5})


def test_a_run_stops_when_fewer_pairs_remain_than_the_split_needs_and_says_why() -> None:
    write("rows.jsonl", list(pairs(5)))
    with Path("rows.jsonl").open("a") as stream:
        stream.write('{"prompt": "q", "completion": ""}\n' * 3 + "no JSON\n")
    result = llamaduo("run", "--source", "rows.jsonl")

    assert result.exit_code == 2
    assert "5 pairs are too few: 4 test and 2 dev rows" in result.output
    assert "9 rows" in result.output
    assert "3 no_answer" in result.output
    assert "rows.jsonl:9: not JSON" in result.output
    assert "Traceback" not in result.output


def test_redaction_is_for_who_asks_and_only_counts_are_told() -> None:
    rows = [*pairs(19), pair("Write to jane.roe@post.test and to 10.1.2.3, please.", "Done, jane.roe@post.test")]
    write("rows.jsonl", rows)
    plain, untouched = covered("--source", "rows.jsonl")
    clean, report = covered("--source", "rows.jsonl", "--set", "coverage.redact=true")

    assert "jane.roe" in json.dumps(plain)
    assert untouched["redacted"] == {}
    assert "jane.roe" not in json.dumps(clean)
    assert json.dumps(clean).count("<EMAIL_1>") == 2
    assert report["redacted"] == {"email": 2, "ip": 1}


def test_an_unknown_country_of_phones_is_told() -> None:
    write("rows.jsonl", list(pairs(20)))
    told = llamaduo(
        "coverage", "--out", "o.jsonl", "--source", "rows.jsonl",
        "--set", "coverage.redact=true", "--set", "coverage.phone_regions=US,ZZ",
    )  # fmt: skip

    assert told.exit_code == 2
    assert "coverage.phone_regions: no country ZZ" in told.output


def test_a_row_added_later_moves_no_test_row_into_train() -> None:
    rows = list(pairs(60))
    write("rows.jsonl", rows[:20])
    before, _ = covered("--source", "rows.jsonl")
    write("rows.jsonl", rows)
    after, _ = covered("--source", "rows.jsonl")

    assert after["test"] == before["test"]
    assert after["dev"] == before["dev"]
    assert len(after["train"]) == 54


def test_a_memory_of_the_split_that_cannot_be_read_is_no_reason_to_forget_it() -> None:
    write("rows.jsonl", list(pairs(20)))
    covered("--source", "rows.jsonl")
    Path(".llamaduo/closed_qa/split.json").write_text("{")
    result = llamaduo("plan", "--source", "rows.jsonl")

    assert result.exit_code == 2
    assert "split.json does not say which pairs were test pairs" in result.output


@pytest.mark.parametrize(
    ("source", "told"),
    [("nowhere.jsonl", "nowhere.jsonl"), ("rows.docx", "rows.docx"), ("hub:", "hub")],
)
def test_a_source_that_cannot_be_had_is_one_line(source: str, told: str) -> None:
    Path("rows.docx").write_bytes(b"PK")
    result = llamaduo("plan", "--source", source)

    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output


def test_a_task_without_a_grammar_needs_a_service_llm_or_one_round(clone: Path) -> None:
    (clone / "projects" / "closed_qa" / "duo.yaml").write_text(yaml.safe_dump({**DUO, "category": "haiku"}))
    write("rows.jsonl", list(pairs(3)))

    assert "offline/teacher has no grammar for 'haiku'" in llamaduo("run", "--source", "rows.jsonl").output
    assert "3 pairs are too few" in llamaduo("run", "--source", "rows.jsonl", "--rounds", "1").output


def test_a_comparison_of_feedback_is_written_behind_the_equals_sign() -> None:
    result = llamaduo("plan", "--source", "traces:shop", "--feedback", "stars>=4")

    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "write stars=>=4" in result.output


def test_pairs_of_traces_are_redacted_again_when_they_come_from_a_file(clone: Path) -> None:
    rows = [*pairs(20), pair("Write to jane.roe@post.test.", "Done", source="traces")]
    write("rows.jsonl", rows)
    project = load("closed_qa", "local")

    assert redaction(project, pairs(3)) is None
    assert redaction(project, rows) is not None
    assert redaction(load("closed_qa", "local", {"coverage.redact": "false"}), rows) is None


def test_what_a_rejected_row_is_quoted_with_is_redacted_too() -> None:
    write("rows.jsonl", list(pairs(20)))
    with Path("rows.jsonl").open("a") as stream:
        stream.write('{"messages": [{"role": "jane.roe@post.test", "content": "q"}]}\n')
    covered("--source", "rows.jsonl", "--set", "coverage.redact=true")
    told = Path(".llamaduo/closed_qa/coverage/rejected.jsonl").read_text()

    assert json.loads(told)["reason"] == "bad_turn"
    assert "jane.roe" not in told
