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
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.curation import peers
from benchmarks.curation.outcome import Outcome, of_files, outcome, train_leaks
from benchmarks.curation.planting import TEST_CLASSES, Truth, plant
from benchmarks.curation.runs import Cost, curated, measured
from benchmarks.row import COLUMNS, Bar, Row, of_share, of_turns, table_line

WALL_S, MEMORY_GB, GROWTH, ROUND_S = 45.0, 2.0, 4.6, 6.0
"""What it must reach, for the full sizes."""
NEAR_PERCENT, CLEAN_PERCENT = 99.0, 0.5
LEAKS_PERCENT = dict(zip(TEST_CLASSES, (90.0, 90.0, 100.0), strict=True))
KINDS = {"near95": "near copies at 0.95", "near90": "near copies at 0.90", "exact": "exact copies"}
TURNS = 3
"""Of what is timed; a round with nothing indexed can be had once."""
PEERS: dict[str, Callable[[Path], peers.Parted]] = {
    "rensa one-shot": peers.rensa_one_shot,
    "datasketch MinHashLSH": peers.datasketch_lsh,
}

Runs = list[tuple[Cost, Outcome]]
"""What the same took, turn by turn, and what came of it: at every turn the same."""


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
        ours, theirs = _small(bench)
        yield from _beside_peers(f"curate {_k(sizes.small)} rows", ours, theirs)
        yield from _scratch(bench, ours)
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


def _small(bench: Bench) -> tuple[Runs, dict[str, Runs]]:
    """The small file, ours and the peers' by turns."""
    ours, theirs = Runs(), {name: Runs() for name in PEERS}
    for _ in range(TURNS):
        ours.append(bench.scratch("small"))
        for name, peer in PEERS.items():
            (kept, gone), cost = measured(peer, bench.file("small"))
            theirs[name].append((cost, outcome(kept, gone, bench.truths, set())))
    return ours, theirs


def _beside_peers(what: str, ours: Runs, theirs: dict[str, Runs]) -> Iterator[Row]:
    for name, its in theirs.items():
        yield of_turns(what, "s", _all(ours, "wall_s"), (name, _all(its, "wall_s")))
        yield of_turns(f"{what}: memory", "GB", _all(ours, "peak_gb"), (name, _all(its, "peak_gb")))
        yield from _found_beside(what, _outcome(ours), name, _outcome(its))


def _found_beside(what: str, found: Outcome, name: str, theirs: Outcome) -> Iterator[Row]:
    for kind, text in KINDS.items():
        share = found.share(kind)
        yield Row(f"{what}: {text} found", share, "%", name, theirs.share(kind), bar=_bar(found, kind))
    flagged = "near copies at 0.95 of which one or both are gone"
    touched = found.touched_share("near95")
    bar = of_share(touched, found.planted["near95"])
    yield Row(f"{what}: {flagged}", touched, "%", name, theirs.touched_share("near95"), bar=bar)
    yield Row(f"{what}: groups of copies of which none is kept", found.lost, "groups", name, theirs.lost)
    yield Row(f"{what}: rows without a copy dropped", len(found.dropped), "rows", name, len(theirs.dropped))


def _scratch(bench: Bench, small: Runs) -> Iterator[Row]:
    runs = [bench.scratch("large") for _ in range(TURNS)]
    found, what = _outcome(runs), f"curate {_k(bench.sizes.large)} rows"
    yield from _costs(what, runs, WALL_S, "memory of all processes")
    growth = [wall / median(_all(small, "wall_s")) for wall in _all(runs, "wall_s")]
    name = f"time for {bench.sizes.large // bench.sizes.small} times as many rows as {_k(bench.sizes.small)}"
    yield of_turns(name, "times", growth, limit=("at most", [GROWTH]))
    for (kind, text), least in zip(KINDS.items(), (NEAR_PERCENT, 0.0, 100.0), strict=True):
        limit = ("least", least) if least else ("", 0.0)
        yield Row(f"{what}: {text} found", found.share(kind), "%", "", 0.0, *limit, _bar(found, kind))
    yield Row(f"{what}: groups of copies of which none is kept", found.lost, "groups", limit="none", limit_figure=0)
    yield Row(f"{what}: rows without a copy dropped", len(found.dropped), "rows", limit="none", limit_figure=0)
    yield from _leaks(what, found)


def _leaks(what: str, found: Outcome) -> Iterator[Row]:
    for words, least in LEAKS_PERCENT.items():
        share, bar = found.share(f"leak {words}"), _bar(found, f"leak {words}")
        yield Row(f"{what}: leaks of prompts of {words} words", share, "%", "", 0.0, "least", least, bar)
    flagged = 100 * len(found.flagged) / found.clean
    bar = of_share(flagged, found.clean)
    yield Row(f"{what}: clean rows flagged", flagged, "%", "", 0.0, "at most", CLEAN_PERCENT, bar)


def _round(bench: Bench) -> Iterator[Row]:
    what = f"curate {_k(bench.sizes.new)} new beside {_k(bench.sizes.large)} known"
    cold, first = bench.round("cold")
    warm = [bench.round("warm") for _ in range(TURNS)]
    again = _outcome(warm)
    if (first.missed, first.dropped, first.flagged) != (again.missed, again.dropped, again.flagged):
        raise RuntimeError("with the index other rows are kept than without it")
    yield from _costs(what, warm, ROUND_S, "memory")
    yield Row(f"{what}, nothing indexed yet", cold.wall_s, "s")
    yield Row(f"{what}, nothing indexed yet: CPU", cold.cpu_s, "s")
    near, bar = again.share("near95"), _bar(again, "near95")
    yield Row(f"{what}: near copies at 0.95 found", near, "%", "", 0.0, "least", NEAR_PERCENT, bar)
    yield Row(f"{what}: rows without a copy dropped", len(again.dropped), "rows", limit="none", limit_figure=0)
    leaks = train_leaks(bench.folder, "warm", bench.ids[: bench.sizes.large], bench.truths)
    yield from _leaks(f"{_k(bench.sizes.large)} known rows", leaks)


def _costs(what: str, runs: Runs, most_s: float, memory: str) -> Iterator[Row]:
    yield of_turns(what, "s", _all(runs, "wall_s"), limit=("at most", [most_s]))
    yield of_turns(f"{what}: CPU", "s", _all(runs, "cpu_s"))
    yield of_turns(f"{what}: {memory}", "GB", _all(runs, "peak_gb"), limit=("at most", [MEMORY_GB]))


def _all(runs: Runs, cost: str) -> list[float]:
    return [getattr(each, cost) for each, _ in runs]


def _outcome(runs: Runs) -> Outcome:
    (_, first), *others = runs
    if any(found != first for _, found in others):
        raise RuntimeError("the same rows had another outcome at another turn")
    return first


def _bar(found: Outcome, kind: str) -> Bar:
    return of_share(found.share(kind), sum(n for name, n in found.planted.items() if name.startswith(kind)))


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
