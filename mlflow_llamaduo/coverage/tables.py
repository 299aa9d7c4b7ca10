"""CSV and Parquet -> rows, so that no line and no row group vanishes.

A CSV reader that forgives takes a stray quote for the beginning of a long cell and swallows what follows. Here the
`csv` module is strict, each record is checked against the header, and lines that went into no row are told by their
numbers. Parquet is read in batches, and only the columns that a shape can use.
"""

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mlflow_llamaduo.coverage.rows import Row, Unreadable, shown
from mlflow_llamaduo.coverage.shapes import FIELDS

CELL_LIMIT = 1 << 24
"""Characters of one CSV cell; a quote that is never closed must not fill the memory."""

BATCH_ROWS = 256
"""Rows of a table that are Python objects at once: at 1 MB a row a quarter of a gigabyte."""


def csv_rows(lines: Iterator[str], name: str, *, delimiter: str | None = None) -> Iterator[Row]:
    """Rows of a CSV file, as objects with the header's names.

    Args:
        lines: its lines with their ends; a byte that is not UTF-8 as a lone surrogate (`surrogateescape`).
        name: the file's name, for `where`.
        delimiter: of the cells; None takes the most frequent one of `,`, `;` and tab in the first line.
    """
    csv.field_size_limit(max(CELL_LIMIT, csv.field_size_limit()))  # it is the process's: never lowered
    head: list[str] = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    records = _records(chain(head, lines), delimiter or max(",;\t", key=head[-1].count if head else str))
    number, header = next(records, (1, []))
    names = header if isinstance(header, Unreadable) else _names(header)
    if isinstance(names, Unreadable):
        yield Row(f"{name}:{number}", names)
        return
    for number, cells in records:
        yield Row(f"{name}:{number}", cells if isinstance(cells, Unreadable) else _named(names, cells))


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str] | Unreadable]]:
    """Each record with the number of its first line; blank lines are passed over."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, Unreadable("not_csv", _lost(str(error), first, reader.line_num))
        else:
            if cells:
                yield first, cells


def _lost(error: str, first: int, last: int) -> str:
    if error == "unexpected end of data":
        error = "a quote is opened and never closed"
    lines = f"lines {first} to {last} give no row" if last > first else f"line {first} gives no row"
    return f"not CSV: {error}; {lines}"


def _names(header: list[str]) -> list[str] | Unreadable:
    """Column names; those that a shape looks for may be written with capitals."""
    names = [cell.strip() for cell in header]
    names = [name.lower() if name.lower() in FIELDS else name for name in names]
    for name in names:
        if name in FIELDS and names.count(name) > 1:
            return Unreadable("not_csv", f"two columns are called {shown(name)}; the file is not read")
    return names


def _named(names: list[str], cells: list[str]) -> dict[str, str] | Unreadable:
    if len(cells) != len(names):
        return Unreadable("cells", f"a row of {len(cells)} cells under a header of {len(names)}")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) & 0xFF
        return Unreadable("encoding", f"not UTF-8: byte {byte:#04x}; save the file as UTF-8")
    return dict(zip(names, cells, strict=True))


def parquet_rows(path: Path, name: str) -> Iterator[Row]:
    """Rows of a Parquet file; what cannot be read of it is told in one row."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            columns = file.schema_arrow.names
            known = [column for column in columns if column in FIELDS] or columns[:1]
            for batch in file.iter_batches(BATCH_ROWS, columns=known, use_threads=False):
                for data in batch_rows(batch):
                    number += 1
                    yield Row(f"{name} row {number}", data)
    except (pa.ArrowException, OSError, ValueError) as error:
        rest = f"; what follows row {number} is not read" if number else ""
        yield Row(name, Unreadable("not_parquet", f"not Parquet: {_line(error)}{rest}"))


def batch_rows(batch: Any) -> list[Any]:
    """The rows of an Arrow batch or table as objects, a row that Python cannot hold as `Unreadable`."""
    import pyarrow as pa

    try:
        batch.validate(full=True)  # Parquet does not say whether its texts are UTF-8
        rows: list[Any] = batch.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        if len(batch) > 1:
            return [row for number in range(len(batch)) for row in batch_rows(batch.slice(number, 1))]
        reason = "encoding" if "UTF8" in str(error) else "not_parquet"
        return [Unreadable(reason, f"a row that cannot be read: {_line(error)}")]
    return rows


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
