"""Files and folders -> rows with their places.

| suffix | what is read |
| --- | --- |
| `.jsonl`, `.ndjson` | one JSON value a line |
| `.json` | a list of rows, one row, or JSON lines under another name |
| `.csv`, `.tsv` | a header and records, see `tables` |
| `.parquet` | see `tables` |

The text ones may be compressed (`.gz`). Text is UTF-8, with or without a byte order mark. What is no row becomes an
`Unreadable` in its place, and reading goes on behind it; only where nobody can say how to go on (a broken list, a
cut archive) one of them stands for the rest of the file. A source that cannot be opened is a DataError.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any

from mlflow_llamaduo.coverage.rows import Row, Unreadable
from mlflow_llamaduo.coverage.tables import csv_rows, parquet_rows
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import no_json

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SHAPE = '{"messages": [{"role", "content"}, ...], "category": str}'

LINE_LIMIT = 1 << 25
"""Bytes of one line: a compressed file can hold a line that fits into no memory."""

DOCUMENT_LIMIT = 1 << 30
"""Bytes of a JSON list: it is held in memory whole."""

BEGINNINGS = {
    b"PAR1": "Parquet: name it .parquet",
    b"\x1f\x8b": "gzip: add .gz to its name",
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or save it as CSV",
    codecs.BOM_UTF16_LE: "UTF-16: save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16: save it as UTF-8",
    codecs.BOM_UTF32_BE: "UTF-32: save it as UTF-8",
}
"""First bytes of files that no line of can be read."""


SPACE = re.compile(r"[ \t\r\n]*")


def each_file_row(path: Path) -> Iterator[Row]:
    """Rows of a file, or of all such files in a folder and the folders below it, sorted by name.

    In a folder, names that begin with `.` or `_`, names without a suffix and `.md` files are passed over; another
    kind of file is told as `unknown_file`.

    Raises:
        DataError: there is no such file or folder, it cannot be read, or it is of no kind that is read.
    """
    try:
        if not path.is_dir():
            return _file_rows(path)
        files = sorted(file for file in path.rglob("*") if _counts(file.relative_to(path)) and file.is_file())
    except OSError as error:
        raise DataError(f"{_name(path)} cannot be read: {error.strerror}") from error
    if not any(_kind(file) for file in files):
        raise DataError(f"no coverage file in {_name(path)}: what is read is {', '.join(SUFFIXES)}")
    return chain.from_iterable(map(_file_rows_or_note, files))


def is_known(path: Path) -> bool:
    """Whether a file's suffix says how to read it."""
    return bool(_kind(path))


def jsonl_rows(path: Path) -> Iterator[Row]:
    """Rows of a file with one JSON value a line, whatever its suffix.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    return _file_rows(path, ".jsonl")


def _counts(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts) and path.suffix.lower() not in ("", ".md")


def _kind(path: Path) -> str:
    """The suffix that says how to read a file, or nothing."""
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    if kind not in SUFFIXES or (kind == ".parquet" and name.endswith(".gz")):
        return ""
    return kind


def _name(path: Path) -> str:
    """A path as text that can be written: file names are bytes, and need not be UTF-8."""
    return str(path).encode(errors="backslashreplace").decode()


def _file_rows_or_note(path: Path) -> Iterator[Row]:
    if _kind(path):
        return _file_rows(path)
    note = Unreadable("unknown_file", f"a file of no kind that is read ({', '.join(SUFFIXES)})")
    return iter([Row(_name(path), note)])


def _file_rows(path: Path, kind: str = "") -> Iterator[Row]:
    if not path.exists():
        raise DataError(f"no coverage file {_name(path)}: write one row a line, {SHAPE}")
    if not path.is_file():
        raise DataError(f"{_name(path)} is neither a file nor a folder")
    kind = kind or _kind(path)
    if not kind:
        raise DataError(f"{_name(path)} is of no kind that is read: {', '.join(SUFFIXES)}, text also with .gz")
    return _opened_rows(path, kind)


def _opened_rows(path: Path, kind: str) -> Iterator[Row]:
    name = _name(path)
    try:
        with path.open("rb") as file:
            if kind == ".parquet":
                yield from parquet_rows(path, name)
            elif path.suffix.lower() == ".gz":
                yield from _text_rows(BufferedReader(gzip.GzipFile(fileobj=file)), name, kind)
            else:
                yield from _text_rows(file, name, kind)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Row(name, Unreadable("not_gzip", f"a broken gzip file, the rest is not read: {error}"))
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error


def _text_rows(stream: BufferedReader, name: str, kind: str) -> Iterator[Row]:
    head = stream.peek(1024)[:1024]
    if (problem := _no_text(head)) is not None:
        return iter([Row(name, problem)])
    if kind in (".csv", ".tsv"):
        text = TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
        return csv_rows(iter(lambda: text.readline(LINE_LIMIT), ""), name, delimiter="\t" if kind == ".tsv" else None)
    if kind == ".json" and not _is_lines(head):
        return _document_rows(stream, name)
    return _line_rows(stream, name)


def _no_text(head: bytes) -> Unreadable | None:
    for beginning, what in BEGINNINGS.items():
        if head.startswith(beginning):
            reason = "encoding" if "UTF" in what else "unknown_file"
            return Unreadable(reason, f"no line of this file can be read, it begins like {what}")
    nuls = sorted(head[side::2].count(0) / max(1, len(head) // 2) for side in (0, 1))
    if len(head) >= 16 and nuls[0] < 0.9 < nuls[1]:  # every other byte, as Latin letters have it
        return Unreadable("encoding", "no line of this file can be read, it looks like UTF-16: save it as UTF-8")
    return None


def _line_rows(stream: BufferedReader, name: str) -> Iterator[Row]:
    number = 0
    while raw := stream.readline(LINE_LIMIT):
        number += 1
        where = f"{name}:{number}"
        if len(raw) == LINE_LIMIT and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(LINE_LIMIT)
            yield Row(where, Unreadable("too_long", f"a line of more than {LINE_LIMIT >> 20} MB"))
            continue
        line = raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip()
        if line:
            yield Row(where, from_line(line))


def from_line(line: bytes) -> Any | Unreadable:
    """The JSON value of a line, or why it has none."""
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        return _unreadable(error)


def _unreadable(error: ValueError | RecursionError, after: str = "") -> Unreadable:
    reason, detail = no_json(error)
    return Unreadable(reason, detail + after)


def _is_lines(head: bytes) -> bool:
    """Whether a `.json` file is JSON lines: its first line is an object, or its second begins with one."""
    lines = head.removeprefix(codecs.BOM_UTF8).lstrip().split(b"\n")
    if not lines[0].startswith(b"{"):
        return False
    whole = lines[0].rstrip().endswith(b"}")
    return whole or len(lines) == 1 or any(line.startswith(b"{") for line in lines[1:2])


def _document_rows(stream: BufferedReader, name: str) -> Iterator[Row]:
    raw = stream.read(DOCUMENT_LIMIT + 1)
    if len(raw) > DOCUMENT_LIMIT:
        yield Row(name, Unreadable("too_long", "more than 1 GB in one JSON value: write one row a line (.jsonl)"))
        return
    text = raw.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    del raw
    number = 0
    try:
        for number, data in enumerate(_values(text), start=1):
            yield Row(f"{name} row {number}", data)
    except (ValueError, RecursionError) as error:
        yield Row(f"{name} row {number + 1}", _unreadable(error, "; from here on the file is not read"))


def _values(text: str) -> Iterator[Any | Unreadable]:
    """The values of a list, or values one after another, each read only when it is asked for.

    Raises:
        ValueError, RecursionError: what follows is no JSON, or too deep.
    """
    decoder = json.JSONDecoder()
    place = _next(text, 0)
    if listed := text.startswith("[", place):
        place = _next(text, place + 1)
    while place < len(text) and not (listed and text[place] == "]"):
        value, end = decoder.raw_decode(text, place)
        try:
            text[place:end].encode()
        except UnicodeEncodeError:
            value = Unreadable("encoding", "not UTF-8")
        yield value
        place = _next(text, end)
        if listed and text.startswith(",", place):
            place = _next(text, place + 1)
        elif listed and not text.startswith("]", place):
            raise json.JSONDecodeError("Expecting ',' or ']' after a row", text, place)
    if listed and (place := _next(text, place + 1)) != len(text):
        raise json.JSONDecodeError("Extra data after the list, or a list without an end", text, min(place, len(text)))


def _next(text: str, place: int) -> int:
    """Where the next character stands that is no space."""
    found = SPACE.match(text, place)
    return found.end() if found else place
