"""Files of every format give the same rows, each with its place; what cannot be read is told and costs no more."""

import codecs
import csv
import dataclasses
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mlflow_llamaduo.coverage.formats import each_file_row
from mlflow_llamaduo.coverage.rows import REASONS, Row, Unreadable
from mlflow_llamaduo.coverage.source import Collected, collect
from mlflow_llamaduo.errors import DataError
from tests.unit.builders import pair, pairs

Json = dict[str, Any]

TWO = pairs(2, category="Closed QA", source="people").with_(
    [pair('Say "Arn", then\n\ta line;', "Arn\n\n  über, \U0001f642")]
)


def as_messages(p: Any) -> Json:
    return {"messages": p.row()["messages"]}


def as_sharegpt(p: Any) -> Json:
    return {"conversations": [{"from": "human", "value": p.instruction}, {"from": "gpt", "value": p.response}]}


def as_prompt(p: Any) -> Json:
    return {"prompt": p.instruction, "completion": p.response}


def as_alpaca(p: Any) -> Json:
    return {"instruction": p.instruction, "input": "", "output": p.response}


def as_log(p: Any) -> Json:
    call = {"call_type": "completion", "messages": [{"role": "user", "content": p.instruction}]}
    return {**call, "response": {"object": "chat.completion", "choices": [{"message": {"content": p.response}}]}}


SHAPES = {
    "messages": as_messages,
    "sharegpt": as_sharegpt,
    "prompt/completion": as_prompt,
    "instruction/input/output": as_alpaca,
    "litellm": as_log,
}


def jsonl(rows: list[Json]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def cells(rows: list[Json], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in row.items()})
    return text.getvalue().encode()


def table(rows: list[Json]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


FORMATS: dict[str, Callable[[list[Json]], bytes]] = {
    "rows.jsonl": jsonl,
    "rows.ndjson": lambda rows: jsonl(rows).replace(b"\n", b"\r\n"),
    "bom.jsonl": lambda rows: codecs.BOM_UTF8 + jsonl(rows),
    "rows.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "list.json": lambda rows: json.dumps(rows).encode(),
    "pretty.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "lines.json": jsonl,
    "values.json": lambda rows: b"\n".join(json.dumps(row, indent=1).encode() for row in rows),
    "rows.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "rows.csv": cells,
    "bom.csv": lambda rows: codecs.BOM_UTF8 + cells(rows),
    "semicolon.csv": lambda rows: cells(rows, ";"),
    "rows.tsv": lambda rows: cells(rows, "\t"),
    "rows.csv.gz": lambda rows: gzip.compress(cells(rows)),
    "rows.parquet": table,
    "ROWS.PARQUET": table,
}


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def read(path: Path) -> Collected:
    collected = collect(each_file_row(path), source="test")
    assert collected.report.rows == collected.report.kept + len(collected.rejected)
    assert all(bad.where.startswith(str(path)) for bad in collected.rejected)
    assert {bad.reason for bad in collected.rejected} <= REASONS.keys()
    return collected


def told(path: Path) -> list[tuple[str, str]]:
    """Place and reason of every bad row; the file's name is left out."""
    return [(bad.where.removeprefix(str(path)), bad.reason) for bad in read(path).rejected]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_in_every_format_gives_the_same_pairs_and_the_same_report(
    tmp_path: Path, shape: str, name: str
) -> None:
    labels = [{"category": p.category, "source": p.source, "id": f"r{n}", "other": 1.5} for n, p in enumerate(TWO)]
    rows = [{**SHAPES[shape](p), **more} for p, more in zip(TWO, labels, strict=True)]
    rows.append({**rows[0], "id": "r3"})
    collected = read(write(tmp_path, name, FORMATS[name](rows)))

    assert collected.pairs == TWO
    assert collected.report.shapes == {shape: 4}
    assert collected.report.rejected == {"duplicate": 1}


def test_a_report_is_the_same_whatever_the_format(tmp_path: Path) -> None:
    rows = [as_prompt(p) for p in TWO] + [{"prompt": "q", "completion": ""}, {"prompt": " ", "completion": "a"}]
    found = {
        json.dumps(dataclasses.asdict(read(write(tmp_path, n, make(rows))).report)) for n, make in FORMATS.items()
    }

    assert len(found) == 1


def test_a_table_without_a_known_column_loses_each_of_its_rows_by_name(tmp_path: Path) -> None:
    rows = [{"a": str(n), "b": "x"} for n in range(300)]

    for name, make in FORMATS.items():
        collected = read(write(tmp_path, name, make(rows)))
        assert collected.report.rejected == {"unknown_shape": 300}
        assert "'a'" in collected.rejected[299].detail


def test_a_folder_is_read_in_the_order_of_names_with_the_folders_below(tmp_path: Path) -> None:
    (tmp_path / "day2").mkdir()
    write(tmp_path, "b.jsonl", jsonl([as_messages(pair("second"))]))
    write(tmp_path, "a.csv", cells([as_prompt(pair("first"))]))
    write(tmp_path / "day2", "c.json", json.dumps(as_log(pair("third"))).encode())
    for name in ("README.md", "LICENSE", ".hidden.jsonl", "_SUCCESS"):
        write(tmp_path, name, b"no row")
    write(tmp_path, "d.xlsx", b"no row either")

    assert [p.instruction for p in read(tmp_path).pairs] == ["first", "second", "third"]
    assert told(tmp_path) == [("/d.xlsx", "unknown_file")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.jsonl", 'no coverage file .*nowhere.jsonl: .*"messages"'),
        ("rows.xlsx", "rows.xlsx is of no kind that is read: .jsonl"),
        ("rows.parquet.gz", "of no kind that is read"),
        ("empty", "no coverage file in .*empty: what is read is .jsonl"),
        ("pipe.jsonl", "neither a file nor a folder"),
    ],
)
def test_a_source_that_cannot_be_opened_is_told_in_one_line(tmp_path: Path, name: str, words: str) -> None:
    write(tmp_path, "rows.xlsx", b"")
    write(tmp_path, "rows.parquet.gz", b"")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")

    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "rows.jsonl", b"")
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))

    with pytest.raises(DataError, match=r"rows\.jsonl cannot be read: Permission denied"):
        read(path)


def test_a_file_name_that_is_not_utf8_is_still_told_in_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xffws.jsonl")
    path.write_bytes(b"no JSON")

    (bad,) = collect(each_file_row(path), source="test").rejected
    assert bad.where.encode().endswith(rb"r\udcffws.jsonl:1")


GOOD = json.dumps(as_messages(pair())).encode()


# JSON lines


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no JSON", "not_json"),
        (GOOD[:-1], "not_json"),
        (GOOD + GOOD, "not_json"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not_json"),
        (b'{"messages": "\xff"}', "encoding"),
        (GOOD.replace(b"Arn", b"\\ud83d"), "encoding"),
        (b"[" * 100_000, "too_deep"),
        (b'{"messages": NaN}', "no_prompt"),
        (b'{"a": 1, "a": 2}', "unknown_shape"),
        (b"\x00", "not_json"),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_the_others_stay(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path, "rows.jsonl", b"\n".join([GOOD, b"", line, b" ", GOOD.replace(b"town", b"city")]))

    assert told(path) == [(":3", reason)]
    assert len(read(path).pairs) == 2


def test_of_two_equal_keys_the_last_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", b'{"prompt": "q", "completion": "no", "completion": "a"}')

    assert read(path).pairs.pairs == (pair("q", "a"),)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv"])
@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf16_is_one_clear_refusal_and_not_one_a_line(tmp_path: Path, name: str, coding: str) -> None:
    path = write(tmp_path, name, (GOOD.decode() + "\n").encode(coding) * 100)

    (bad,) = read(path).rejected
    assert (bad.where, bad.reason) == (str(path), "encoding")
    assert "save it as UTF-8" in bad.detail


@pytest.mark.parametrize("data", [table([as_prompt(pair())]), gzip.compress(GOOD), b"PK\x03\x04" + GOOD])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_file_of_another_kind_under_a_wrong_name_is_one_refusal(tmp_path: Path, name: str, data: bytes) -> None:
    assert told(write(tmp_path, name, data)) == [("", "unknown_file")]


def test_a_cut_archive_keeps_the_rows_before_the_cut(tmp_path: Path) -> None:
    rows = [as_messages(pair(f"{n} {os.urandom(60).hex()}")) for n in range(2000)]
    path = write(tmp_path, "rows.jsonl.gz", gzip.compress(jsonl(rows))[:-20_000])

    assert told(path)[-1] == ("", "not_gzip")
    assert read(path).report.kept > 500


def test_a_line_without_end_is_passed_over_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_llamaduo.coverage.formats.LINE_LIMIT", 1000)
    path = write(tmp_path, "rows.jsonl", GOOD + b"\n" + b"x" * 5000 + b"\n" + GOOD.replace(b"town", b"city"))

    assert told(path) == [(":2", "too_long")]
    assert len(read(path).pairs) == 2


def test_a_row_of_a_megabyte_is_read(tmp_path: Path) -> None:
    rows = [as_prompt(pair("q" * 1_000_000)), as_prompt(pair("q", "a" * 1_000_000))]

    for name, make in FORMATS.items():
        found = collect(each_file_row(write(tmp_path, name, make(rows))), source="test", max_characters=2_000_000)
        assert len(found.pairs) == 2, name


# A JSON list


@pytest.mark.parametrize(
    ("data", "kept", "reason"),
    [
        (b"[%s" % GOOD, 1, "not_json"),
        (b"[%s]]" % GOOD, 1, "not_json"),
        (b"[%s %s]" % (GOOD, GOOD), 1, "not_json"),
        (b'[%s, {"a": tru}, %s]' % (GOOD, GOOD), 1, "not_json"),
        (b"[%s, %s]" % (GOOD, b"[" * 100_000), 1, "too_deep"),
        (b"[%s, %s]" % (GOOD, b"9" * 5000), 1, "not_json"),
        (b'[%s, {"a": "\xff"}, %s]' % (GOOD, GOOD.replace(b"town", b"city")), 2, "encoding"),
        (b"[%s, 7]" % GOOD, 1, "unknown_shape"),
        (b"7", 0, "unknown_shape"),
        (b"no JSON", 0, "not_json"),
        (b'{\n "a": tru}', 0, "not_json"),
    ],
)
def test_a_broken_list_keeps_its_rows_and_tells_where_it_breaks(
    tmp_path: Path, data: bytes, kept: int, reason: str
) -> None:
    path = write(tmp_path, "rows.json", data)

    (place, why), *rest = told(path)
    assert (why, rest) == (reason, [])
    assert place == f" row {kept + 1 if reason != 'encoding' else 2}"
    assert len(read(path).pairs) == kept


@pytest.mark.parametrize("data", [b"", b"[]", b" [ ] ", b"\n"])
def test_a_file_without_a_row_has_none(tmp_path: Path, data: bytes) -> None:
    assert read(write(tmp_path, "rows.json", data)).report.rows == 0


# CSV

HEADER = b"prompt,completion\n"


@pytest.mark.parametrize(
    ("data", "where", "reason"),
    [
        (HEADER + b'q1,a1\n"q2,a2\nq3,a3\n', ":3", "not_csv"),
        (HEADER + b'q1,a1\nq2,"a2"x\n', ":3", "not_csv"),
        (HEADER + b"q1,a1\nq2,a2,a3\n", ":3", "cells"),
        (HEADER + b"q1,a1\n\nq2\n", ":4", "cells"),
        (HEADER + b"q1,a1\nq2,\xff\n", ":3", "encoding"),
        (b"prompt,completion,note\nq1,a1,n\nq2,a2,\xff\n", ":3", "encoding"),
        (b"prompt,completion,Prompt\nq,a,b\n", ":1", "not_csv"),
        (b'"prompt,completion\nq,a\n', ":1", "not_csv"),
    ],
)
def test_a_bad_record_is_told_by_its_first_line(tmp_path: Path, data: bytes, where: str, reason: str) -> None:
    assert told(write(tmp_path, "rows.csv", data)) == [(where, reason)]


def test_a_quote_that_is_never_closed_tells_every_line_it_swallowed(tmp_path: Path) -> None:
    lines = [b"q%d,a%d\n" % (n, n) for n in range(2, 9)]
    lines[3] = b'q5,"a5\n'
    path = write(tmp_path, "rows.csv", HEADER + b"".join(lines))

    (bad,) = read(path).rejected
    assert len(read(path).pairs) == 3
    assert bad.detail == "not CSV: a quote is opened and never closed; lines 5 to 8 give no row"


def test_reading_goes_on_behind_a_bad_quote(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", HEADER + b'"q1","a1"\n"q2","a2\n"q3","a3"\n"q4","a4"\n')

    assert [p.instruction for p in read(path).pairs] == ["q1", "q4"]
    assert "lines 3 to 4" in read(path).rejected[0].detail


def test_a_quote_swallows_no_more_than_a_cell_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_llamaduo.coverage.tables.CELL_LIMIT", 140_000)
    before = csv.field_size_limit(131_072)
    try:
        path = write(tmp_path, "rows.csv", HEADER + b'q1,"a1\n' + b"q,a\n" * 40_000 + b"last,row\n")
        assert read(path).pairs.pairs[-1] == pair("last", "row")
        assert told(path)[0] == (":2", "not_csv")
    finally:
        csv.field_size_limit(before)


def test_a_header_may_be_written_with_capitals_and_spaces(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", b"\n Prompt ,Completion\rq,a\r")

    assert read(path).pairs.pairs == (pair("q", "a"),)


def test_a_nul_in_a_cell_is_a_character_like_others(tmp_path: Path) -> None:
    assert read(write(tmp_path, "rows.csv", HEADER + b"q\0,a\n")).pairs.pairs == (pair("q\0", "a"),)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=8))
def test_whatever_was_written_as_csv_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]
) -> None:
    rows = [{"prompt": f"q{prompt}.", "completion": f"a{response}."} for prompt, response in texts]
    path = write(tmp_path_factory.mktemp("csv"), "rows.csv", cells([*rows, {"prompt": "q", "completion": "a"}]))

    asked = [row.data for row in each_file_row(path)]
    assert asked == [*rows, {"prompt": "q", "completion": "a"}]


# Parquet


def test_a_text_that_is_not_utf8_costs_its_own_row_only(tmp_path: Path) -> None:
    raw = pa.array([b"q1", b"q\xff", b"q3"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    parquet.write_table(pa.table({"prompt": texts, "completion": ["a", "a", "a"]}), tmp_path / "rows.parquet")

    assert told(tmp_path / "rows.parquet") == [(" row 2", "encoding")]


def test_a_parquet_file_that_ends_early_is_one_refusal(tmp_path: Path) -> None:
    data = table([as_prompt(p) for p in pairs(50)])

    for cut in (0, 3, 4, 100, len(data) - 9):
        assert told(write(tmp_path, "rows.parquet", data[:cut])) == [("", "not_parquet")]


def test_values_that_no_text_can_be_made_of_are_rows_with_a_reason(tmp_path: Path) -> None:
    far = pa.array([2**62, 0], pa.timestamp("ms"))
    parquet.write_table(pa.table({"prompt": ["q", "q"], "completion": far}), tmp_path / "rows.parquet")

    assert told(tmp_path / "rows.parquet") == [(" row 1", "not_parquet"), (" row 2", "not_text")]


# Anything


@given(
    st.sampled_from(list(FORMATS)), st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: GOOD + b + GOOD)
)
def test_any_bytes_under_any_name_are_rows_or_reasons(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("any"), name, data)

    rows = list(each_file_row(path))
    assert all(isinstance(row, Row) for row in rows)
    assert {row.data.reason for row in rows if isinstance(row.data, Unreadable)} <= REASONS.keys()
    assert read(path).report.rows == len(rows)
    if name == "rows.ndjson" and not any(row.where == str(path) for row in rows):
        assert len(rows) == sum(bool(line.strip()) for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n"))
