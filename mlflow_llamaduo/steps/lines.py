"""A JSONL file of any size as sketches and places: read in parts by several processes, its texts not kept."""

import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from mlflow_llamaduo.core.leaks import LeakIndex
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.tokens import Hashes, Numbers
from mlflow_llamaduo.coverage.formats import from_line
from mlflow_llamaduo.coverage.rows import Bad, Unreadable
from mlflow_llamaduo.coverage.shapes import read_row
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.synthesis.sketch import Sketch, join, sketch

TABLES = (".gz", ".csv", ".tsv", ".parquet")

PART_BYTES = 16 * 2**20
"""A part that one process reads; a file of no more is read where it is asked for."""


@dataclass(frozen=True)
class Lines:
    """The lines of a file: line i is at `starts[i]` to `starts[i + 1]`, in bytes."""

    path: Path
    starts: Numbers

    @staticmethod
    def of(path: Path) -> "Lines":
        """Find the lines of a file.

        Raises:
            DataError: there is no such file.
        """
        if not path.is_file():
            raise DataError(f"no file {path}")
        if path.suffix.lower() in TABLES:
            raise DataError(f"{path}: JSON lines are wanted here; `llamaduo coverage` makes them of other files")
        with path.open("rb") as stream:
            return Lines(path, np.cumsum([0, *(len(line) for line in stream)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def ended(self) -> bool:
        """Whether the last line has an end: another may still be writing it."""
        with self.path.open("rb") as stream:
            stream.seek(max(0, int(self.starts[-1]) - 1))
            return stream.read(1) == b"\n"

    def digest(self, size: int) -> str:
        """BLAKE2 of the first `size` bytes: whether a file has only grown."""
        total = blake2b(digest_size=16)
        with self.path.open("rb") as stream:
            while size > 0 and (block := stream.read(min(size, 2**22))):
                total.update(block)
                size -= len(block)
        return total.hexdigest()

    def pair(self, line: int) -> Pair:
        """The pair in a line that is known to hold one."""
        with self.path.open("rb") as stream:
            stream.seek(self.starts[line])
            return _pair(stream.read(self.starts[line + 1] - self.starts[line]))

    def sample(self, count: int) -> list[Pair]:
        """At most `count` of its pairs, evenly spaced; lines that hold none are passed over."""
        pairs = []
        with self.path.open("rb") as stream:
            for line in range(0, len(self), max(1, -(-len(self) // count))):
                stream.seek(self.starts[line])
                with suppress(Bad):
                    pairs.append(_pair(stream.readline()))
        return pairs


@dataclass
class Rows:
    """The rows of a file that are pairs, as one sketch: row i is in line `lines[i]`; and the lines that are none."""

    lines: Numbers
    sketch: Sketch
    bad: dict[int, Unreadable] = field(default_factory=dict)


def read(lines: Lines, first: int, *, without: Hashes, prompts: Sequence[str]) -> Rows:
    """The sketches of the rows from line `first` on.

    Args:
        lines: the file.
        first: the first line that is read.
        without: the template's words.
        prompts: the held-out prompts.
    """
    parts = list(_parts(lines.starts, first))
    work = partial(_read, lines.path, without=without, prompts=prompts)
    if len(parts) < 2:
        done = [work(*part) for part in parts]
    else:
        with ProcessPoolExecutor(min(len(parts), os.cpu_count() or 1), get_context("spawn")) as pool:
            done = list(pool.map(work, *zip(*parts, strict=True)))
    bad: dict[int, Unreadable] = {}
    for rows in done:
        bad |= rows.bad
    empty = sketch([], without=without, leaks=LeakIndex(prompts))
    return Rows(
        np.concatenate([np.empty(0, np.int64), *(rows.lines for rows in done)]),
        join([empty, *(rows.sketch for rows in done)]),
        bad,
    )


def _parts(starts: Numbers, first: int) -> Iterator[tuple[int, int, int]]:
    """First line, its place in the file, and number of lines of each part."""
    while first < len(starts) - 1:
        after = max(first + 1, int(np.searchsorted(starts, starts[first] + PART_BYTES)))
        after = min(after, len(starts) - 1)
        yield first, int(starts[first]), after - first
        first = after


def _read(path: Path, first: int, place: int, count: int, *, without: Hashes, prompts: Sequence[str]) -> Rows:
    numbers: list[int] = []
    bad: dict[int, Unreadable] = {}

    def pairs() -> Iterator[Pair]:
        with path.open("rb") as stream:
            stream.seek(place)
            for number in range(first, first + count):
                line = stream.readline()
                if not line.strip():
                    continue
                try:
                    pair = _pair(line)
                except Bad as why:
                    bad[number] = Unreadable(why.reason, why.detail)  # `Bad` itself does not travel
                    continue
                numbers.append(number)
                yield pair

    made = sketch(pairs(), without=without, leaks=LeakIndex(prompts))
    return Rows(np.array(numbers, np.int64), made, bad)


def _pair(line: bytes) -> Pair:
    data = from_line(line.removeprefix(BOM_UTF8).strip())
    if isinstance(data, Unreadable):
        raise Bad(data.reason, data.detail)
    return read_row(data).pair
