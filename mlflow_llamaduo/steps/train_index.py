"""What is known of the train file of a curation, kept on disk: the next time only what was added to it is read."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlflow_llamaduo.core.leaks import LeakIndex, template_runs, worst
from mlflow_llamaduo.core.likeness import near_pairs
from mlflow_llamaduo.core.minhash import candidates
from mlflow_llamaduo.core.records import PairSet, digest
from mlflow_llamaduo.core.tokens import Hashes, Numbers
from mlflow_llamaduo.files import locked
from mlflow_llamaduo.steps.lines import Lines, Rows, read
from mlflow_llamaduo.synthesis.known import Known, load
from mlflow_llamaduo.synthesis.sketch import SAMPLE, sketch, template


@dataclass(frozen=True)
class Train:
    """The train file: what is known of its rows, the line of each, and which of them give a test prompt away."""

    lines: Lines
    known: Known
    places: Numbers
    leaking: dict[int, tuple[int, float]]
    unreadable: int
    read: int
    """Rows that had to be read now; the others were known."""

    @staticmethod
    def of(path: Path, new: Lines, test: PairSet, leaks: LeakIndex, home: Path) -> "Train":
        """All there is to know, from the index as far as the file has only grown since, and from the file."""
        lines = Lines.of(path)
        index = home / f"{digest(str(path.absolute()))}.npz"
        with locked(index.with_suffix(".lock"), f"{path} is being indexed"):
            before = _indexed(index, lines, leaks, len(new))
            without = before.known.template if before else template([*lines.sample(SAMPLE), *new.sample(SAMPLE)])
            first = int(np.searchsorted(lines.starts, before.lines.starts[-1])) if before else 0
            rows = read(lines, first, without=without, prompts=[pair.instruction for pair in test])
            train = _after(before, lines, rows, without, leaks, test)
            if rows.lines.size or not before:
                _save(index, train)
        return train


def _after(before: Train | None, lines: Lines, rows: Rows, without: Hashes, leaks: LeakIndex, test: PairSet) -> Train:
    if before is None:
        known, places, leaking = Known.sketched(rows.sketch, without=without, leaks=leaks), rows.lines, {}
    else:
        known = before.known.with_(rows.sketch, np.arange(len(rows.lines)), leaks)
        places, leaking = np.concatenate([before.places, rows.lines]), before.leaking
    common = template_runs(known.run_counts, len(known))
    old = len(places) - len(rows.lines)
    words = worst(leaks.links(rows.sketch.hits, common), rows.sketch.same)
    near = _near_test(known, old, places, lines, sketch(test, without=without, leaks=leaks).bands, test)
    leaking = {**leaking, **near, **{old + row: why for row, why in words.items()}}
    return Train(lines, known, places, leaking, (before.unreadable if before else 0) + len(rows.bad), len(rows.lines))


def _near_test(
    known: Known, old: int, places: Numbers, lines: Lines, tests: Hashes, test: PairSet
) -> dict[int, tuple[int, float]]:
    """The rows from `old` on that are near copies of test rows."""
    prompt, row = candidates(np.concatenate([tests, known.bands[old:]]), len(tests), earlier_than=len(tests))
    return {
        old + int(number) - len(tests): (int(one), 1.0)
        for one, number in zip(prompt, row, strict=True)
        if near_pairs(test.pairs[one], lines.pair(int(places[old + number - len(tests)])))
    }


def _indexed(index: Path, lines: Lines, leaks: LeakIndex, more: int) -> Train | None:
    """What the index says of the file, if it fits: same beginning, same test prompts, not outgrown."""
    if (stored := load(index)) is None:
        return None
    known, extra = stored
    size = int(extra["size"])
    if (
        size > lines.starts[-1]
        or not known.knows(leaks)
        or known.outgrown(more)
        or lines.digest(size) != extra["digest"]
    ):
        return None
    leaking = {int(row): (int(prompt), float(share)) for row, prompt, share in extra["leaking"]}
    covered = Lines(lines.path, lines.starts[: int(np.searchsorted(lines.starts, size)) + 1])
    return Train(covered, known, extra["places"], leaking, int(extra["unreadable"]), 0)


def _save(index: Path, train: Train) -> None:
    train = _whole(train)
    size = int(train.lines.starts[-1])
    leaking = [(row, prompt, share) for row, (prompt, share) in train.leaking.items()]
    train.known.save(
        index,
        size=size,
        digest=np.array(train.lines.digest(size)),
        places=train.places,
        leaking=np.array(leaking, float).reshape(-1, 3),
        unreadable=train.unreadable,
    )


def _whole(train: Train) -> Train:
    """Without a last line that nobody has ended yet: it may be another one the next time."""
    lines, last = train.lines, len(train.lines) - 1
    if last < 0 or lines.ended:
        return train
    known, places, count = train.known, train.places, len(train.places)
    if count and places[-1] == last:
        known, places = replace(known, exact=known.exact[:-1], bands=known.bands[:-1]), places[:-1]
    leaking = {row: why for row, why in train.leaking.items() if row < len(places)}
    unreadable = train.unreadable - (len(places) == count)
    return replace(
        train,
        lines=Lines(lines.path, lines.starts[:-1]),
        known=known,
        places=places,
        leaking=leaking,
        unreadable=max(0, unreadable),
    )
