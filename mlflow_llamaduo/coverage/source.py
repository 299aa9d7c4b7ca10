"""Rows of any source -> satisfactory pairs, and a report that accounts for every row.

    each_file_row(path) | hub_rows(name) | traces  ->  rows  ->  collect  ->  Collected(pairs, rejected, report)

`collect` is the one pipeline: shape, pair, category, length, redaction, duplicate ids, exact duplicates. A row that
falls out on the way is a `BadRow` with its place and reason, so `rows == kept + sum(rejected)` always holds.
`read_pairs` is the strict reader of files that this project wrote itself: there a bad row is an error.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_llamaduo.core.records import Message, Pair, PairSet
from mlflow_llamaduo.coverage.formats import each_file_row, is_known, jsonl_rows
from mlflow_llamaduo.coverage.rows import Bad, BadRow, Row, Unreadable, shown
from mlflow_llamaduo.coverage.shapes import Shaped, read_row
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import SHOWN

__all__ = ["BadRow", "Collected", "Report", "Row", "collect", "each_file_row", "read_pairs"]

Redact = Callable[[Pair], tuple[Pair, Mapping[str, int]]]


@dataclass(frozen=True)
class Report:
    """What became of a source's rows; `dataclasses.asdict` makes JSON of it.

    Args:
        source: what was read, in words.
        rows: rows read, and places where no row could be read: `kept` and all `rejected` together.
        kept: pairs that came of them.
        shapes: how many rows were a pair in which shape, kept or not.
        rejected: how many rows were not kept for which reason (a key of `rows.REASONS`).
        redacted: what was taken out of the kept pairs, counted by kind.
        characters: of `prompt` and `response` of the kept pairs: `median`, `p95`, `max`.
    """

    source: str
    rows: int
    kept: int
    shapes: dict[str, int]
    rejected: dict[str, int]
    redacted: dict[str, int]
    characters: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Collected:
    """The pairs of a source, the rows that gave none, and the numbers of both."""

    pairs: PairSet
    rejected: tuple[BadRow, ...]
    report: Report


def collect(
    rows: Iterable[Row],
    *,
    source: str,
    categories: Collection[str] = (),
    max_characters: int = 100_000,
    redact: Redact | None = None,
    done: Callable[[int], object] = lambda _: None,
) -> Collected:
    """Keep the rows that are pairs, are wanted, and are new.

    Args:
        rows: of a file, a hub dataset, traces.
        source: what they come from, for the report.
        categories: names of the wanted category, compared without case, spaces, `_` and `-`; a kept pair carries the
            first of them. A row without a category is wanted. None keeps all rows with the category they have.
        max_characters: of prompt and response together.
        redact: takes out what nobody should learn, and counts it by kind.
        done: told of every row.

    Raises:
        DataError: the source ended early because it could not be read.
    """
    sieve = _Sieve(categories, max_characters, redact)
    for row in rows:
        sieve.take(row)
        done(1)
    return sieve.collected(source)


def read_pairs(path: Path, *, category: str = "") -> PairSet:
    """Read a file in which every row should be a pair; exact copies count once.

    Args:
        path: a file in any of the formats; one of another suffix is read as JSON lines.
        category: keep rows of this category only (rows without one are kept); empty keeps all.

    Raises:
        DataError: a row is no pair; the message lists file, line and reason of every such row.
    """
    pairs: dict[tuple[tuple[Message, ...], str], Pair] = {}
    problems: list[str] = []
    wanted = {"", folded(category)}
    for row in each_file_row(path) if is_known(path) or path.is_dir() else jsonl_rows(path):
        try:
            pair = _shaped(row).pair
        except Bad as bad:
            problems.append(f"{row.where}: {bad.detail}")
            continue
        if not category or folded(pair.category) in wanted:
            pairs.setdefault((pair.prompt, pair.response), pair)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([*problems[:SHOWN], *more]))
    return PairSet(tuple(pairs.values()))


def folded(category: str) -> str:
    """A category's name as it is compared: `Closed QA` is `closed_qa`."""
    return "".join(category.casefold().replace("_", " ").replace("-", " ").split())


def _shaped(row: Row) -> Shaped:
    if isinstance(row.data, Unreadable):
        raise Bad(row.data.reason, row.data.detail)
    return read_row(row.data)


class _Sieve:
    """Takes rows one by one; each is kept, or rejected with its reason."""

    def __init__(self, categories: Collection[str], max_characters: int, redact: Redact | None) -> None:
        self._category = next(iter(categories), "")
        self._wanted = {"", *map(folded, categories)}
        self._max_characters = max_characters
        self._redact = redact
        self._rows = 0
        self._kept: dict[tuple[tuple[Message, ...], str], tuple[Pair, str]] = {}  # what Pair.id digests, undigested
        self._ids: dict[str, str] = {}
        self._rejected: list[BadRow] = []
        self._shapes: Counter[str] = Counter()
        self._redacted: Counter[str] = Counter()

    def take(self, row: Row) -> None:
        self._rows += 1
        try:
            shaped = _shaped(row)
            self._shapes[shaped.shape] += 1
            pair, found = self._clean(self._fit(shaped.pair))
            self._keep(pair, shaped.id, row.where)
        except Bad as bad:
            self._rejected.append(BadRow(row.where, bad.reason, bad.detail))
        else:
            self._redacted.update(found)

    def _fit(self, pair: Pair) -> Pair:
        if self._category:
            if folded(pair.category) not in self._wanted:
                raise Bad("other_category", f"category {shown(pair.category)}")
            if pair.category != self._category:
                pair = Pair(pair.prompt, pair.response, self._category, pair.source)
        length = len(pair.response) + sum([len(message.content) for message in pair.prompt])
        if length > self._max_characters:
            raise Bad("too_long", f"{length} characters of prompt and response, more than {self._max_characters}")
        return pair

    def _clean(self, pair: Pair) -> tuple[Pair, Mapping[str, int]]:
        return self._redact(pair) if self._redact else (pair, {})

    def _keep(self, pair: Pair, own_id: str | None, where: str) -> None:
        if own_id is not None and own_id in self._ids:
            raise Bad("duplicate_id", f"the id {shown(own_id)} of {self._ids[own_id]}")
        content = (pair.prompt, pair.response)
        if content in self._kept:
            raise Bad("duplicate", f"the same prompt and answer as {self._kept[content][1]}")
        self._kept[content] = (pair, where)
        if own_id is not None:
            self._ids[own_id] = where

    def collected(self, source: str) -> Collected:
        pairs = PairSet(tuple(pair for pair, _ in self._kept.values()))
        report = Report(
            source,
            rows=self._rows,
            kept=len(pairs),
            shapes=dict(self._shapes.most_common()),
            rejected=dict(Counter(bad.reason for bad in self._rejected).most_common()),
            redacted=dict(self._redacted.most_common()),
            characters={
                "prompt": _spread([sum(len(message.content) for message in pair.prompt) for pair in pairs]),
                "response": _spread([len(pair.response) for pair in pairs]),
            },
        )
        return Collected(pairs, tuple(self._rejected), report)


def _spread(lengths: list[int]) -> dict[str, int]:
    ranked = sorted(lengths) or [0]
    last = len(ranked) - 1
    return {"median": ranked[last // 2], "p95": ranked[last * 95 // 100], "max": ranked[last]}
