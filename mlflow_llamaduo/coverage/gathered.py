"""What stage 1 brings: the pairs, parted, and what became of every row of the source; and the memory of the split.

Below the working folder of a task:

    coverage/report.json        counts: rows, kept, shapes, rejected by reason, redacted by kind
    coverage/rejected.jsonl     place, reason and detail of every row that was not kept
    split.json                  digests of the prompts that have been test or dev
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.coverage.rows import BadRow
from mlflow_llamaduo.coverage.source import Report
from mlflow_llamaduo.coverage.split import Sides
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import to_jsonl, write_atomic

SPLIT = "split.json"
SHOWN = 10
"""Rejected rows that an error shows."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The coverage pairs of a project, parted, and what became of the source's rows."""

    parts: Split
    report: Report
    rejected: tuple[BadRow, ...]

    def keep(self, folder: Path) -> None:
        """Write report and rejected rows below `folder`, and remember the split there."""
        write_atomic(folder / "coverage" / "report.json", json.dumps(asdict(self.report), indent=1) + "\n")
        write_atomic(folder / "coverage" / "rejected.jsonl", to_jsonl(asdict(row) for row in self.rejected))
        decided = sides(folder).after(self.parts)
        write_atomic(folder / SPLIT, json.dumps({"test": sorted(decided.test), "dev": sorted(decided.dev)}) + "\n")


def sides(folder: Path) -> Sides:
    """What was remembered of earlier splits.

    Raises:
        DataError: the file cannot be read; without it a test pair might be trained on.
    """
    file = folder / SPLIT
    if not file.is_file():
        return Sides()
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return Sides(frozenset(known["test"]), frozenset(known["dev"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} does not say which pairs were test pairs: bring it back, or remove it if none of the models "
            "that were trained here matters any more"
        ) from error


def told(report: Report) -> str:
    """What became of the rows, in one line."""
    line = (
        f"{report.source}: {report.rows} rows ({_counts(report.shapes) or 'of no known shape'}), {report.kept} kept"
    )
    if report.rejected:
        line += f"; rejected: {_counts(report.rejected)}"
    return line + (f"; redacted: {_counts(report.redacted)}" if report.redacted else "")


def examples(rejected: tuple[BadRow, ...]) -> Iterator[str]:
    """Some rejected rows, a line each."""
    yield from (f"{row.where}: {row.detail}" for row in rejected[:SHOWN])
    if len(rejected) > SHOWN:
        yield f"and {len(rejected) - SHOWN} more"


def _counts(of: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(of.items(), key=lambda item: -item[1]))
