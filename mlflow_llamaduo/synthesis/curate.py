"""Keep the new pairs that are new and clean (paper, section 3.4; the authors' script drops both of two copies).

In this order: rows that give a held-out prompt away (`core.leaks`), exact copies, near copies (MinHash LSH finds the
candidates, `core.likeness` decides, on prompt and response). Of the rows that say the same the earliest is kept:
known rows first, then new ones in their order. Every rejected row names its reason and its partner.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlflow_llamaduo.core.leaks import LeakIndex, template_runs, worst
from mlflow_llamaduo.core.likeness import NEAR, near_pairs
from mlflow_llamaduo.core.minhash import candidates, likeness
from mlflow_llamaduo.core.records import Grown, Pair, PairSet, Rejected
from mlflow_llamaduo.core.tokens import Hashes, Numbers
from mlflow_llamaduo.synthesis.known import Known, load
from mlflow_llamaduo.synthesis.sketch import Sketch, sketch, template

MOST = 8
"""Candidates that a row is compared with at most."""

PairAt = Callable[[int], Pair]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a row is not kept: `leak`, `duplicate` or `near_duplicate`; its partner's number; the share given away.

    The partner of a leak is a held-out row; all others count through known and new rows.
    """

    reason: str
    partner: int
    share: float = 1.0

    @property
    def of_test(self) -> bool:
        """Whether the partner is a held-out row."""
        return self.reason == "leak"


def curate(new: Iterable[Pair], *, known: PairSet, test: PairSet, index: Path | None = None) -> Grown:
    """Sort new pairs into kept and rejected.

    Args:
        new: pairs as the generator wrote them.
        known: the training pairs so far.
        test: the held-out pairs; nothing near their prompts is kept.
        index: a file to keep what was reckoned of the pairs, so that the next time only new ones are read.
    """
    rows = tuple(new)
    held_out = LeakIndex([pair.instruction for pair in test])
    before = _remembered(index, known, held_out, len(rows)) if index else None
    if before is None:
        before = Known.of(known, without=template([*known, *rows]), leaks=held_out)
    mine = sketch(rows, without=before.template, leaks=held_out)
    tests = sketch(test, without=before.template, leaks=held_out)
    everything = (*test, *known, *rows)
    found = findings(mine, before, tests, held_out, everything.__getitem__)
    beside = (*known, *rows)
    rejected = tuple(
        Rejected(row, why.reason, _detail(why), (test.pairs if why.of_test else beside)[why.partner].id)
        for number, row in enumerate(rows)
        if (why := found.get(number))
    )
    kept = np.array([number for number in range(len(rows)) if number not in found], np.int64)
    grown = Grown(tuple(rows[number] for number in kept), rejected)
    if index:
        after = before.with_(mine, kept, held_out)
        after.save(index, pairs=np.array(known.with_(grown.kept).digest))
    return grown


def _remembered(index: Path, known: PairSet, leaks: LeakIndex, more: int) -> Known | None:
    """What the index says, if it is about these pairs and these held-out prompts, and not outgrown."""
    if (stored := load(index)) is None:
        return None
    before, extra = stored
    fits = str(extra.get("pairs")) == known.digest and before.knows(leaks) and not before.outgrown(more)
    return before if fits else None


def findings(new: Sketch, known: Known, tests: Sketch, leaks: LeakIndex, pair_at: PairAt) -> dict[int, Finding]:
    """For every new row that is not to be kept, by its number, why.

    Args:
        new: the new rows.
        known: the rows that are there, with the counts of the same held-out prompts.
        tests: the held-out rows.
        leaks: the index of the held-out prompts.
        pair_at: the texts of a row; rows count through held-out, known and new ones.
    """
    common = template_runs(known.run_counts + leaks.counts(new.hits), len(known) + len(new))
    given_away = worst(leaks.links(new.hits, common), new.same)
    found = {row: Finding("leak", prompt, share) for row, (prompt, share) in given_away.items()}
    for row, partner in _exact_copies(known, new):
        found.setdefault(row, Finding("duplicate", partner))
    for row, finding in _near_copies(new, known, tests, found, pair_at):
        found[row] = finding
    return found


def _exact_copies(known: Known, new: Sketch) -> Iterable[tuple[int, int]]:
    exact = np.concatenate([known.exact, new.exact])
    _, first, group = np.unique(exact, return_index=True, return_inverse=True)
    earliest = first[group][len(known) :]
    copies = np.flatnonzero(earliest < np.arange(len(known), len(exact)))
    return zip(copies.tolist(), earliest[copies].tolist(), strict=True)


def _near_copies(
    new: Sketch, known: Known, tests: Sketch, gone: dict[int, Finding], pair_at: PairAt
) -> Iterable[tuple[int, Finding]]:
    """Near copies of rows that are kept, or of held-out rows, in the order of the new rows."""
    before = len(tests) + len(known)
    left = np.setdiff1d(np.arange(len(new)), np.fromiter(gone, np.int64, len(gone)))
    keys = np.concatenate([tests.bands, known.bands, new.bands[left]])
    earlier, later = candidates(keys, before)
    dropped: set[int] = set()
    edges = np.flatnonzero(np.diff(later)) + 1
    for part in np.split(np.arange(len(later)), edges) if len(later) else []:
        place = int(later[part[0]])
        row = int(left[place - before])
        pair = pair_at(before + row)
        for other in _likeliest(keys, place, earlier[part]):
            number = other if other < before else before + int(left[other - before])
            if other in dropped or not near_pairs(pair_at(number), pair):
                continue
            dropped.add(place)
            yield (
                row,
                Finding("leak", number) if number < len(tests) else Finding("near_duplicate", number - len(tests)),
            )
            break


def _likeliest(keys: Hashes, row: int, others: Numbers) -> list[int]:
    """The candidates that are most like a row, in their order."""
    if len(others) <= MOST:
        return [int(other) for other in others]
    shared = likeness(keys[[row, *others]], np.zeros(len(others), np.int64), np.arange(1, len(others) + 1))
    return sorted(int(other) for other in others[np.argsort(-shared, kind="stable")[:MOST]])


def _detail(why: Finding) -> str:
    match why.reason:
        case "leak":
            return f"{100 * min(1.0, why.share):.0f} % of the words of a held-out prompt"
        case "duplicate":
            return "the same prompt and response"
        case _:
            return f"the same in nearly the same words (ROUGE-L above {NEAR:g} on prompt and response)"
