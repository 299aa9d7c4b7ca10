"""What benchmarks have found, kept from run to run, and the page that is made of it.

Each benchmark has a file of its own in `results`: a run of one leaves those of the others, and their dates, alone.
"""

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.row import COLUMNS, Bar, Ratio, Row, table_line
from mlflow_llamaduo.files import write_atomic

PROMISED = ("benchmark", "promise", "figure", "peer", "limit", "machine", "date", "command")
HEAD = """# Benchmarks

Written by `make bench`, a part alone by `python -m benchmarks <part>`; what was measured is kept in `results`. In
brackets is how far a figure goes: the lowest and the highest of n turns, or the 95 % interval of what n trials say of
a share, a count or a mean. With n=1 it was measured once, and nothing is known of that. A ratio is the figure over
the peer's or the limit's, measured in the same run: compare ratios between machines and days, not seconds. "-": there
is none. Below the table is all that was measured.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of one run of one benchmark, and where, when and how they were measured."""

    machine: str
    date: str
    command: str
    rows: tuple[Row, ...]


def measured(command: str, rows: Iterable[Row]) -> Result:
    """What is measured here and now."""
    return Result(_machine(), f"{datetime.now(UTC):%Y-%m-%d}", command, tuple(rows))


def save(result: Result, file: Path) -> None:
    """Write a result, one row a line; what was there stays until all of it is written."""
    rows = ",\n".join(f"    {json.dumps(_dumped(row))}" for row in result.rows)
    about = {key: getattr(result, key) for key in ("machine", "date", "command")}
    head = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in about.items())
    write_atomic(file, f'{{\n{head}  "rows": [\n{rows}\n  ]\n}}\n')


def load(file: Path) -> Result:
    """What `save` wrote."""
    found = json.loads(file.read_text())
    return Result(**{**found, "rows": tuple(_loaded(row) for row in found["rows"])})


def page(results: Mapping[str, Result], promises: Mapping[str, Mapping[str, str]]) -> str:
    """The page: one table of what is promised, and a section of all rows for each benchmark.

    Args:
        results: by benchmark.
        promises: by benchmark and name of a row, and in the page's order: what the row must show.
    """
    parts = {name: results[name] for name in promises if name in results}
    table = [
        _promised(row, promises[name][row.name], result)
        for name, result in parts.items()
        for row in result.rows
        if row.name in promises[name]
    ]
    return "\n".join([HEAD, *_table(PROMISED, table), *(_section(*part) for part in parts.items()), ""])


def _promised(row: Row, promise: str, result: Result) -> str:
    beside = (_in_one(*row.beside_peer), _in_one(*row.beside_limit))
    return table_line(row.name, promise, row.measured, *beside, result.machine, result.date, f"`{result.command}`")


def _in_one(other: str, ratio: str) -> str:
    return other if ratio == "-" else f"{other}, ratio {ratio}"


def _section(name: str, result: Result) -> str:
    about = f"{result.machine}, {result.date}, `{result.command}`"
    return "\n".join(["", f"## {name}", "", about, "", *_table(COLUMNS, map(str, result.rows))])


def _table(columns: Iterable[str], lines: Iterable[str]) -> list[str]:
    names = tuple(columns)
    return [table_line(*names), table_line(*("---" for _ in names)), *lines]


def _dumped(row: Row) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(row)}
    told = {key: value for key, value in asdict(row).items() if getattr(row, key) != defaults[key]}
    return {key: _filled(value) if isinstance(value, dict) else value for key, value in told.items()}


def _filled(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value is not None}


def _loaded(found: dict[str, Any]) -> Row:
    kinds = {"bar": Bar, "peer_ratio": Ratio, "limit_ratio": Ratio}
    values: dict[str, Any] = {key: kinds[key](**value) if key in kinds else value for key, value in found.items()}
    return Row(**values)


def _machine() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    cpu = names[0] if names else platform.processor() or platform.machine()
    memory = f"{psutil.virtual_memory().total / 1e9:.0f} GB"
    return f"{cpu}, {os.cpu_count()} cores, {memory}, {platform.machine()}, Python {platform.python_version()}"


def _cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.is_file() else ""
