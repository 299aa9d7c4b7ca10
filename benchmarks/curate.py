"""`llamaduo curate` on rows with planted copies and leaks, beside rensa and datasketch.

    scratch   A file of 64K rows and one of 256K, of about 100 tokens each, nothing known: time, memory, and what of
              the planted is found. How a near copy, a leak and a plain row are made is said in curation/planting.py.
    round     16K new rows beside 256K known ones, as a round of the loop is: once with nothing indexed, and again.
              The second is what every later round costs; the first also says which of the known rows are leaks.
    peers     The same 64K rows through rensa's one-shot flags and through datasketch's MinHashLSH.

Every contender has a process of its own; time is that of the whole process, its start included, and memory the sum
over all its processes. Of a group of copies exactly one is to be kept: where none is, the whole group counts as not
found.

    python -m benchmarks.curate [--quick]
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.curation import peers
from benchmarks.curation.outcome import Outcome, of_files, outcome, train_leaks
from benchmarks.curation.planting import TEST_CLASSES, Truth, plant
from benchmarks.curation.runs import Cost, curated, measured
from benchmarks.row import COLUMNS, Row, table_line

WALL_S, MEMORY_GB, GROWTH, ROUND_S = 45.0, 2.0, 4.6, 6.0
"""What it must reach, for the full sizes."""
NEAR_PERCENT, CLEAN_PERCENT = 99.0, 0.5
LEAKS_PERCENT = dict(zip(TEST_CLASSES, (90.0, 90.0, 100.0), strict=True))
KINDS = {"near95": "near copies at 0.95", "near90": "near copies at 0.90", "exact": "exact copies"}
PEERS: dict[str, Callable[[Path], peers.Parted]] = {
    "rensa one-shot": peers.rensa_one_shot,
    "datasketch MinHashLSH": peers.datasketch_lsh,
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of the large file, which begins with the small one, and new rows of a round."""

    large: int
    small: int
    new: int


FULL, QUICK = Sizes(1 << 18, 1 << 16, 1 << 14), Sizes(1 << 14, 1 << 12, 1 << 10)


@dataclass(frozen=True)
class Bench:
    """The files of one benchmark, and the truth about their rows."""

    folder: Path
    ids: list[str]
    truths: dict[str, Truth]
    sizes: Sizes

    def file(self, name: str) -> Path:
        """The file of so many rows, of the new ones or of the test rows."""
        return self.folder / f"{name}.jsonl"

    def scratch(self, name: str) -> tuple[Cost, Outcome]:
        """Curate one file, nothing known."""
        cost = curated(self.folder, self.file(name), None, self.file("test"), name=f"scratch {name}")
        return cost, of_files(self.folder, f"scratch {name}", self.truths, set())

    def round(self, name: str) -> tuple[Cost, Outcome]:
        """Curate the new rows beside the large file."""
        cost = curated(self.folder, self.file("new"), self.file("large"), self.file("test"), name=name)
        return cost, of_files(self.folder, name, self.truths, set(self.ids[: self.sizes.large]))


def measure(sizes: Sizes = FULL, folder: Path | None = None) -> Iterator[Row]:
    """All rows of the table; the files stay in `folder` if one is given."""
    with TemporaryDirectory() as temporary:
        bench = _planted(sizes, folder or Path(temporary))
        small, found = bench.scratch("small")
        yield from _beside_peers(bench, small, found)
        yield from _scratch(bench, small)
        yield from _round(bench)


def _planted(sizes: Sizes, folder: Path) -> Bench:
    made = plant(sizes.large + sizes.new)
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, [row["id"] for row in made.rows], made.truths, sizes)
    parts = {"large": made.rows[: sizes.large], "small": made.rows[: sizes.small], "new": made.rows[sizes.large :]}
    for name, rows in {**parts, "test": made.test}.items():
        _save(bench.file(name), rows)
    return bench


def _save(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def _beside_peers(bench: Bench, ours: Cost, found: Outcome) -> Iterator[Row]:
    what = f"curate {_k(bench.sizes.small)} rows"
    for name, peer in PEERS.items():
        (kept, gone), cost = measured(peer, bench.file("small"))
        theirs = outcome(kept, gone, bench.truths, set())
        yield Row(f"{what}", ours.wall_s, "s", name, cost.wall_s)
        yield Row(f"{what}: memory", ours.peak_gb, "GB", name, cost.peak_gb)
        for kind, text in KINDS.items():
            yield Row(f"{what}: {text} found", found.share(kind), "%", name, theirs.share(kind))
        flagged = "near copies at 0.95 of which one or both are gone"
        yield Row(f"{what}: {flagged}", found.touched_share("near95"), "%", name, theirs.touched_share("near95"))
        yield Row(f"{what}: groups of copies of which none is kept", found.lost, "groups", name, theirs.lost)
        yield Row(f"{what}: rows without a copy dropped", len(found.dropped), "rows", name, len(theirs.dropped))


def _scratch(bench: Bench, small: Cost) -> Iterator[Row]:
    cost, found = bench.scratch("large")
    what = f"curate {_k(bench.sizes.large)} rows"
    yield Row(what, cost.wall_s, "s", limit="at most", limit_figure=WALL_S)
    yield Row(f"{what}: CPU", cost.cpu_s, "s")
    yield Row(f"{what}: memory of all processes", cost.peak_gb, "GB", limit="at most", limit_figure=MEMORY_GB)
    growth = cost.wall_s / small.wall_s
    name = f"time for {bench.sizes.large // bench.sizes.small} times as many rows as {_k(bench.sizes.small)}"
    yield Row(name, growth, "times", limit="at most", limit_figure=GROWTH)
    for (kind, text), least in zip(KINDS.items(), (NEAR_PERCENT, 0.0, 100.0), strict=True):
        limit = "least" if least else ""
        yield Row(f"{what}: {text} found", found.share(kind), "%", limit=limit, limit_figure=least)
    yield Row(f"{what}: groups of copies of which none is kept", found.lost, "groups", limit="none", limit_figure=0)
    yield Row(f"{what}: rows without a copy dropped", len(found.dropped), "rows", limit="none", limit_figure=0)
    yield from _leaks(what, found)


def _leaks(what: str, found: Outcome) -> Iterator[Row]:
    for words, least in LEAKS_PERCENT.items():
        share = found.share(f"leak {words}")
        yield Row(f"{what}: leaks of prompts of {words} words", share, "%", limit="least", limit_figure=least)
    flagged = 100 * len(found.flagged) / found.clean
    yield Row(f"{what}: clean rows flagged", flagged, "%", limit="at most", limit_figure=CLEAN_PERCENT)


def _round(bench: Bench) -> Iterator[Row]:
    what = f"curate {_k(bench.sizes.new)} new beside {_k(bench.sizes.large)} known"
    cold, first = bench.round("cold")
    warm, again = bench.round("warm")
    if (first.missed, first.dropped, first.flagged) != (again.missed, again.dropped, again.flagged):
        raise RuntimeError("with the index other rows are kept than without it")
    yield Row(what, warm.wall_s, "s", limit="at most", limit_figure=ROUND_S)
    yield Row(f"{what}: CPU", warm.cpu_s, "s")
    yield Row(f"{what}: memory", warm.peak_gb, "GB", limit="at most", limit_figure=MEMORY_GB)
    yield Row(f"{what}, nothing indexed yet", cold.wall_s, "s")
    yield Row(f"{what}, nothing indexed yet: CPU", cold.cpu_s, "s")
    yield Row(
        f"{what}: near copies at 0.95 found", again.share("near95"), "%", limit="least", limit_figure=NEAR_PERCENT
    )
    yield Row(f"{what}: rows without a copy dropped", len(again.dropped), "rows", limit="none", limit_figure=0)
    leaks = train_leaks(bench.folder, "warm", bench.ids[: bench.sizes.large], bench.truths)
    yield from _leaks(f"{_k(bench.sizes.large)} known rows", leaks)


def _k(rows: int) -> str:
    return f"{rows >> 10}K"


def main() -> None:
    """Print the table of this benchmark alone."""
    parser = argparse.ArgumentParser(description="llamaduo curate against its peers and limits.")
    parser.add_argument("--quick", action="store_true", help="16K rows in place of 256K, to see that all works")
    parser.add_argument("--keep", type=Path, help="a folder that the files are written to, and left in")
    options = parser.parse_args()
    print("\n".join([table_line(*COLUMNS), table_line(*("---" for _ in COLUMNS))]))
    for row in measure(QUICK if options.quick else FULL, options.keep):
        print(row, flush=True)


if __name__ == "__main__":
    main()
