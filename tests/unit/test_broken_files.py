"""Two hundred broken files: each is read to its end, and every row of it is kept or rejected with a reason."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlflow_llamaduo.coverage.formats import each_file_row
from mlflow_llamaduo.coverage.rows import REASONS
from mlflow_llamaduo.coverage.source import Collected, collect, read_pairs
from mlflow_llamaduo.errors import DataError
from tests.unit.builders import pairs

FILES = 200
ROWS: list[dict[str, Any]] = [
    {"id": f"r{n}", "messages": p.row()["messages"], "category": "closed_qa", "note": 'a "quoted", word'}
    for n, p in enumerate(pairs(30))
]


def as_lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def as_list() -> bytes:
    return json.dumps(ROWS, indent=1).encode()


def as_csv() -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "prompt", "completion", "category", "note"])
    for row in ROWS:
        asked, answered = (turn["content"] for turn in row["messages"])
        writer.writerow([row["id"], asked, f"{answered}\nand more", row["category"], row["note"]])
    return text.getvalue().encode()


def as_parquet() -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=10)
    return sink.getvalue()


def as_archive() -> bytes:
    return gzip.compress(as_lines(), mtime=0)


VALID: dict[str, Callable[[], bytes]] = {
    ".jsonl": as_lines,
    ".json": as_list,
    ".csv": as_csv,
    ".parquet": as_parquet,
    ".jsonl.gz": as_archive,
}


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.choice([1, 5, 50])):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def spoil(*pieces: bytes) -> Callable[[bytes, random.Random], bytes]:
    """Put bytes that do harm in some places."""

    def spoiled(data: bytes, rng: random.Random) -> bytes:
        for _ in range(rng.choice([1, 3, 30])):
            place = rng.randrange(len(data))
            data = data[:place] + rng.choice(pieces) + data[place + rng.choice([0, 1, 9]) :]
        return data

    return spoiled


def shuffle(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines)


def grow(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.choice([b"a", b'"', b"\n", b"\xc3\xa4", b"[", b"9"]) * 1_000_000 + data[place:]


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    cut,
    flip,
    shuffle,
    grow,
    spoil(b"\0", b"\0" * 100),
    spoil(b'"', b"'", b'""', b'\\"', "\u201c".encode()),
    spoil(b"\xff", b"\xc3", b"\xed\xa0\xbd", b"\\ud83d", b"\xfe\xff"),
    spoil(b"[" * 5_000, b'{"a":' * 5_000),
    spoil(b"9" * 5_000, b"1e999", b"NaN", b"-Infinity"),
    spoil(b"\r", b"\r\n", b"\x0b", "\u2028".encode(), b"\x1a"),
]


def broken_file(seed: int, folder: Path) -> Path:
    """A valid file of some format after one to three mutations; now and then under another format's name."""
    rng = random.Random(seed)  # noqa: S311 - the same files every time
    suffix = rng.choice(list(VALID))
    data = VALID[suffix]()
    for change in rng.sample(MUTATIONS, rng.randint(1, 3)):
        data = change(data, rng) if data else data
    if rng.random() < 0.1:
        suffix = rng.choice(list(VALID))
    path = folder / f"broken{seed}{suffix}"
    path.write_bytes(data)
    return path


def read(path: Path) -> Collected:
    collected = collect(each_file_row(path), source=str(path))
    report = collected.report
    assert report.rows == report.kept + sum(report.rejected.values())
    assert (len(collected.pairs), len(collected.rejected)) == (report.kept, sum(report.rejected.values()))
    assert report.rejected.keys() <= REASONS.keys()
    for bad in collected.rejected:
        assert bad.where.startswith(str(path))
        assert len(bad.detail.encode()) < 500
    return collected


@pytest.mark.parametrize("suffix", VALID)
def test_the_files_are_whole_before_they_are_broken(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"whole{suffix}"
    path.write_bytes(VALID[suffix]())

    assert read(path).report.kept == read(path).report.rows == len(ROWS)


@pytest.mark.parametrize("tens", range(FILES // 10))
def test_of_a_broken_file_every_row_is_accounted_for(tens: int, tmp_path: Path) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        path = broken_file(seed, tmp_path)
        collected = read(path)
        if path.suffix == ".jsonl" and not any(bad.where == str(path) for bad in collected.rejected):
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
            assert collected.report.rows == sum(bool(line.strip()) for line in lines)


def test_what_the_report_rejects_the_strict_reader_refuses(tmp_path: Path) -> None:
    refused = 0
    for seed in range(40):
        path = broken_file(seed, tmp_path)
        spoilt = {bad.where for bad in read(path).rejected if not bad.reason.startswith(("duplicate", "too_long"))}
        if spoilt:
            with pytest.raises(DataError) as caught:
                read_pairs(path)
            assert str(caught.value).split("\n")[0].startswith(tuple(spoilt))
            refused += 1
        else:
            read_pairs(path)
    assert refused > 20


def test_mutations_leave_some_rows_and_break_others(tmp_path: Path) -> None:
    reports = [read(broken_file(seed, tmp_path)).report for seed in range(60)]

    assert sum(report.kept for report in reports) > 200
    assert len({reason for report in reports for reason in report.rejected}) > 6
