"""`make bench`: every benchmark of this folder, its figures into benchmarks/README.md.

`python -m benchmarks startup` runs one, and writes its part and its lines of the table anew; those of the others stay
as they are. Each is kept as soon as it has ended: what is broken off is the benchmark it is at, and no other.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.promises import PROMISES
from benchmarks.results import load, measured, page, save
from benchmarks.row import Row

BENCHMARKS = tuple(PROMISES)
"""Modules of this folder, in the order in which they run; `measure` yields the rows."""
HERE = Path(__file__).parent


def main() -> None:
    """Run those that are named, or all."""
    names = sys.argv[1:] or BENCHMARKS
    if unknown := set(names).difference(BENCHMARKS):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    run(names, HERE)


def run(names: Sequence[str], folder: Path, measure: Callable[[str], Iterable[Row]] | None = None) -> None:
    """Measure, keep in `folder`/results and write `folder`/README.md, one benchmark after the other."""
    for name in names:
        result = measured(f"python -m benchmarks {name}", (measure or _measure)(name))
        save(result, folder / "results" / f"{name}.json")
        write(folder)
        print(*result.rows, sep="\n", flush=True)


def write(folder: Path) -> None:
    """The page of what is kept."""
    files = {name: folder / "results" / f"{name}.json" for name in BENCHMARKS}
    results = {name: load(file) for name, file in files.items() if file.is_file()}
    (folder / "README.md").write_text(page(results, PROMISES))


def _measure(name: str) -> Iterable[Row]:
    # Imported when it is its turn: what one of them needs, Ray or torch, does not run beside another's figures.
    rows: Iterable[Row] = import_module(f"benchmarks.{name}").measure()
    return rows


if __name__ == "__main__":
    main()
