"""`llamaduo curate`: files in, files out, and the index beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.files import to_jsonl
from mlflow_llamaduo.steps import lines
from tests.unit.builders import pair, pairs


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *rows: Pair | str) -> Path:
    path = Path(name)
    path.write_text("".join(f"{row}\n" if isinstance(row, str) else to_jsonl([row.row()]) for row in rows))
    return path


def curate(*more: str) -> Result:
    files = ["--in", "new.jsonl", "--out", "kept.jsonl", "--rejected", "rejected.jsonl", "--report", "report.json"]
    return CliRunner().invoke(cli, ["curate", *files, *more])


def curated(*more: str) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """Lines kept, rows rejected, report."""
    result = curate(*more)
    assert result.exit_code == 0, result.output
    rejected = [json.loads(line) for line in Path("rejected.jsonl").read_text().splitlines()]
    return Path("kept.jsonl").read_text().splitlines(), rejected, json.loads(Path("report.json").read_text())


def loud(p: Pair) -> Pair:
    return pair(p.instruction.upper() + "!!", p.response.title())


BESIDE = ("--train", "train.jsonl", "--test", "test.jsonl")


def test_every_row_is_kept_as_it_was_or_rejected_with_reason_and_partner() -> None:
    train, test, new = pairs(9, "train").pairs, pairs(4, "test").pairs, pairs(5, "new").pairs
    write("train.jsonl", *train)
    write("test.jsonl", *test)
    odd = json.dumps({"prompt": "In a shape of its own?", "completion": "Kept", "id": 7, "note": "\u00e9"})
    write(
        "new.jsonl", *new, odd, new[1], loud(train[3]), pair(f"Now: {test[2].instruction}"), "no JSON", "", '{"a": 1}'
    )
    kept, rejected, report = curated(*BESIDE)

    assert kept == [*(to_jsonl([p.row()]).rstrip() for p in new), odd]
    assert [(row["where"], row["reason"], row.get("partner")) for row in rejected] == [
        ("new.jsonl:7", "duplicate", "new.jsonl:2"),
        ("new.jsonl:8", "near_duplicate", "train.jsonl:4"),
        ("new.jsonl:9", "leak", f"test.jsonl:test pair {test[2].id}"),
        ("new.jsonl:10", "not_json", None),
        ("new.jsonl:12", "unknown_shape", None),
    ]
    assert rejected[0]["row"] == new[1].row()
    assert report["rows"] == report["kept"] + sum(report["rejected"].values()) == 11
    assert report["train"]["rows"] == 9


def test_train_rows_that_give_a_test_prompt_away_are_told() -> None:
    train, test = pairs(9, "train").pairs, pairs(4, "test").pairs
    write("train.jsonl", *train, pair(f"Once more: {test[1].instruction}", "b"), loud(test[2]))
    write("test.jsonl", *test)
    write("new.jsonl", *pairs(2, "new"))
    result = curate(*BESIDE)
    leaks = json.loads(Path("report.json").read_text())["train"]["leaks"]

    assert [(leak["where"], leak["test"]) for leak in leaks] == [
        ("train.jsonl:10", test[1].id),
        ("train.jsonl:11", test[2].id),
    ]
    assert "2 of 11 train rows give a test prompt away, such as train.jsonl:10" in result.output


def test_the_next_time_only_what_was_added_to_the_train_file_is_read() -> None:
    train, test = pairs(30, "train").pairs, pairs(3, "test").pairs
    write("train.jsonl", *train, pair(f"Once more: {test[1].instruction}", "b"))
    write("test.jsonl", *test)
    write("new.jsonl", *pairs(4, "new"))
    _, _, first = curated(*BESIDE)
    with Path("train.jsonl").open("a") as stream:
        stream.write(Path("kept.jsonl").read_text())
    write("new.jsonl", loud(train[5]), loud(pairs(4, "new").pairs[1]), *pairs(2, "newer"))
    kept, rejected, second = curated(*BESIDE)
    _, _, third = curated(*BESIDE)

    assert [first["train"]["read_now"], second["train"]["read_now"], third["train"]["read_now"]] == [31, 4, 0]
    assert [row["partner"] for row in rejected] == ["train.jsonl:6", "train.jsonl:33"]
    assert len(kept) == 2
    assert first["train"]["leaks"] == second["train"]["leaks"] == third["train"]["leaks"]
    assert third["train"]["rows"] == 35


@pytest.mark.parametrize("change", ["first row", "shorter", "other test", "index"])
def test_an_index_that_no_longer_fits_is_made_anew(change: str) -> None:
    train, test, new = list(pairs(12, "train")), list(pairs(3, "test")), pairs(2, "new").pairs
    write("train.jsonl", *train)
    write("test.jsonl", *test)
    write("new.jsonl", *new)
    curated(*BESIDE)
    if change == "first row":
        train[0] = pairs(1, "other").pairs[0]
    if change == "shorter":
        train = train[:6]
    if change == "other test":
        test = list(pairs(3, "others"))
    if change == "index":
        (index,) = Path(".llamaduo/curation").glob("*.npz")
        index.write_bytes(b"PK" + index.read_bytes()[2:200])
    write("train.jsonl", *train)
    write("test.jsonl", *test)
    write("new.jsonl", loud(train[0]), pair(f"Now: {test[0].instruction}"), *new)
    kept, rejected, report = curated(*BESIDE)

    assert report["train"]["read_now"] == len(train)
    assert [row["reason"] for row in rejected] == ["near_duplicate", "leak"]
    assert len(kept) == 2


def test_a_train_file_that_is_still_being_written_is_read_again_from_its_last_line() -> None:
    train = pairs(12, "train").pairs
    write("train.jsonl", *train)
    whole = Path("train.jsonl").read_text()
    Path("train.jsonl").write_text(whole[:-40])
    write("new.jsonl", *pairs(2, "new"))
    _, _, first = curated("--train", "train.jsonl")
    Path("train.jsonl").write_text(whole)
    write("new.jsonl", loud(train[11]), loud(train[3]))
    kept, rejected, second = curated("--train", "train.jsonl")
    _, _, third = curated("--train", "train.jsonl")

    assert (first["train"]["rows"], first["train"]["unreadable"]) == (11, 1)
    assert (second["train"]["rows"], second["train"]["unreadable"], second["train"]["read_now"]) == (12, 0, 1)
    assert (kept, [row["partner"] for row in rejected]) == ([], ["train.jsonl:12", "train.jsonl:4"])
    assert third["train"]["read_now"] == 0


def test_a_last_row_without_a_line_end_is_known_but_read_again() -> None:
    train = pairs(12, "train").pairs
    write("train.jsonl", *train)
    Path("train.jsonl").write_text(Path("train.jsonl").read_text().rstrip("\n"))
    write("new.jsonl", loud(train[11]))
    reports = [curated("--train", "train.jsonl")[2]["train"] for _ in range(2)]

    assert [(report["rows"], report["read_now"]) for report in reports] == [(12, 12), (12, 1)]
    assert Path("kept.jsonl").read_text() == ""


def test_without_train_and_test_only_copies_are_rejected() -> None:
    new = pairs(3).pairs
    write("new.jsonl", *new, loud(new[0]))
    kept, rejected, _ = curated()

    assert len(kept) == 3
    assert [row["partner"] for row in rejected] == ["new.jsonl:1"]


def test_a_last_line_without_an_end_and_a_byte_order_mark_are_no_trouble() -> None:
    text = "".join(to_jsonl([p.row()]) for p in pairs(2)).rstrip("\n")
    Path("new.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    kept, rejected, _ = curated()

    assert (len(kept), rejected) == (2, [])


def test_parts_of_a_file_read_by_several_processes_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    new = pairs(40).pairs
    write("new.jsonl", *new, "no JSON", *[loud(p) for p in new[:5]], "{}")
    write("train.jsonl", *pairs(20, "train"))
    write("test.jsonl", *pairs(3, "test"), new[7])
    whole = curated(*BESIDE)
    monkeypatch.setattr(lines, "PART_BYTES", 3000)
    (index,) = Path(".llamaduo/curation").glob("*.npz")
    index.unlink()

    assert curated(*BESIDE) == whole


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--train", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["--test", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--train", "kept.jsonl"], "--out and --train are the same file"),
        (["--report", "new.jsonl"], "--report and --in are the same file"),
        (["--train", "new.jsonl"], "--train and --in are the same file"),
        (["--train", "rows.csv"], "JSON lines are wanted here; `llamaduo coverage` makes them"),
    ],
)
def test_what_cannot_be_is_told_in_a_line_before_anything_is_written(arguments: list[str], told: str) -> None:
    before = write("new.jsonl", *pairs(2)).read_text()
    write("rows.csv", "prompt,completion")
    result = curate(*arguments)

    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
    assert Path("new.jsonl").read_text() == before
    assert not Path("kept.jsonl").exists()


def test_bad_test_rows_end_it() -> None:
    write("new.jsonl", *pairs(2))
    write("test.jsonl", "no JSON")
    result = curate("--test", "test.jsonl")

    assert result.exit_code == 2
    assert "test.jsonl:1: not JSON" in result.output


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_lines_are_kept_or_rejected_and_none_is_lost(rows: list[bytes]) -> None:
    Path("new.jsonl").write_bytes(b"\n".join(rows))
    kept, rejected, report = curated()
    lines_there = [line for line in b"\n".join(rows).split(b"\n") if line.strip()]

    assert len(kept) + len(rejected) == report["rows"] == len(lines_there)
