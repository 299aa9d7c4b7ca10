"""Split once, by digest: the same pairs fall on the same side on every machine, whatever the order of the rows.

Test only gates and dev only steers, so pairs that give each other's prompts away (a passage with several questions, a
near copy) are one group, and a group is on one side. Test and dev are drawn from strata of category and length, each
by its share of the rows. What was test before stays test or is left out; it never comes into train (`Sides`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_llamaduo.core.leaks import LeakIndex, template_runs
from mlflow_llamaduo.core.likeness import near_pairs
from mlflow_llamaduo.core.minhash import bands, candidates, template_words
from mlflow_llamaduo.core.records import Message, Pair, PairSet, digest
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.core.tokens import tokenize
from mlflow_llamaduo.errors import DataError

LENGTHS = 3
"""Strata of length in each category: short, middling and long rows."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What a split has decided before, as digests of prompts; see `prompt_digest`."""

    test: frozenset[str] = frozenset()
    dev: frozenset[str] = frozenset()

    def after(self, parts: Split) -> "Sides":
        """What is decided once these parts have been used."""
        test, dev = (frozenset(prompt_digest(pair) for pair in side) for side in (parts.test, parts.dev))
        return Sides(self.test | test, (self.dev | dev) - self.test - test)


def prompt_digest(pair: Pair) -> str:
    """Digest of the prompt alone: with another response it is on the same side."""
    return digest("split", pair.instruction)


def split(pairs: PairSet, *, test_rows: int, dev_rows: int, sides: Sides = Sides()) -> Split:
    """Part pairs into train, dev and test.

    Args:
        pairs: all of them.
        test_rows: pairs that gate.
        dev_rows: pairs that steer.
        sides: what an earlier split of these pairs, or of a part of them, has decided.

    Raises:
        DataError: too few pairs for the split.
    """
    needed = test_rows + dev_rows + 1
    if len(pairs) < needed:
        raise DataError(
            f"{len(pairs)} pairs are too few: {test_rows} test and {dev_rows} dev rows and at least one to train "
            f"on need {needed}; add pairs or lower coverage.test_rows and coverage.dev_rows"
        )
    ranked = sorted(pairs, key=lambda pair: (prompt_digest(pair), pair.id))
    groups = _groups(ranked)
    test, dev, taken = _held_out(ranked, groups, test_rows, dev_rows, sides)
    train = [rank for rank in range(len(ranked)) if groups[rank] not in taken]
    if not train or len(test) < test_rows or len(dev) < dev_rows:
        largest = max(Counter(groups).values())
        raise DataError(
            f"{len(ranked)} pairs cannot be parted: up to {largest} of them share their text and stay together, so "
            f"that {test_rows} test, {dev_rows} dev and a train pair cannot be had; add other pairs"
        )
    left_out = set(range(len(ranked))).difference(train, dev, test)
    return Split(*(PairSet(tuple(ranked[rank] for rank in sorted(side))) for side in (train, dev, test, left_out)))


def _held_out(
    ranked: Sequence[Pair], groups: Sequence[int], test_rows: int, dev_rows: int, sides: Sides
) -> tuple[list[int], list[int], set[int]]:
    """The ranks of test and dev, and the groups that must not be trained on."""
    strata = _strata(ranked)
    was_test = [rank for rank, pair in enumerate(ranked) if prompt_digest(pair) in sides.test]
    was_dev = [rank for rank, pair in enumerate(ranked) if prompt_digest(pair) in sides.dev - sides.test]
    bound, steering = {groups[rank] for rank in was_test}, {groups[rank] for rank in was_dev}

    free = [rank for rank in range(len(ranked)) if groups[rank] not in bound]
    test = was_test[:test_rows]
    for chosen in ([rank for rank in free if groups[rank] not in steering], free):  # what steered is taken last
        test += _draw([rank for rank in chosen if rank not in test], test_rows - len(test), groups, strata)
    taken = bound | {groups[rank] for rank in test}

    dev = [rank for rank in was_dev if groups[rank] not in taken][:dev_rows]
    taken |= steering
    dev += _draw([rank for rank in free if groups[rank] not in taken], dev_rows - len(dev), groups, strata)
    return test, dev, taken | {groups[rank] for rank in dev}


def _draw(free: Iterable[int], wanted: int, groups: Sequence[int], strata: Sequence[object]) -> list[int]:
    """`wanted` rows in whole groups as far as they go: the lowest ranks of each stratum, by the strata's shares."""
    members: dict[int, list[int]] = defaultdict(list)
    for rank in free:
        members[groups[rank]].append(rank)
    by_stratum: dict[object, list[list[int]]] = defaultdict(list)
    for group in members.values():
        by_stratum[strata[group[0]]].append(group)
    total = sum(map(len, members.values()))
    drawn: list[int] = []
    spare: list[list[int]] = []
    for own in by_stratum.values():
        quota, had = max(0, wanted) * sum(map(len, own)) / max(1, total), 0
        for group in own:
            if had + len(group) <= quota:
                drawn += group
                had += len(group)
            else:
                spare.append(group)
    for group in sorted(spare, key=lambda group: (len(group) > wanted - len(drawn), group)):
        drawn += group[: max(0, wanted - len(drawn))]  # the rest of a group that is cut is left out
    return drawn


def _strata(ranked: Sequence[Pair]) -> list[object]:
    """Category and third of length of every pair, lengths compared within the category."""
    lengths: dict[str, list[int]] = defaultdict(list)
    for pair in ranked:
        lengths[pair.category].append(_length(pair))
    edges = {
        category: np.quantile(own, [n / LENGTHS for n in range(1, LENGTHS)]) for category, own in lengths.items()
    }
    return [(pair.category, int(np.searchsorted(edges[pair.category], _length(pair)))) for pair in ranked]


def _length(pair: Pair) -> int:
    return len(pair.instruction) + len(pair.response)


def _groups(ranked: Sequence[Pair]) -> list[int]:
    """For every pair the lowest rank among those it must stay with."""
    above = list(range(len(ranked)))

    def top(rank: int) -> int:
        while above[rank] != rank:
            above[rank] = rank = above[above[rank]]
        return rank

    for one, other in _related(ranked):
        low, high = sorted((top(one), top(other)))
        above[high] = low
    return [top(rank) for rank in range(len(ranked))]


def _related(ranked: Sequence[Pair]) -> Iterable[tuple[int, int]]:
    """Pairs whose prompts are the same, near copies, or give each other away."""
    prompts = [pair.instruction for pair in ranked]
    tokens = tokenize(prompts)
    index = LeakIndex(prompts)
    yield from enumerate(index.same(tokens).tolist())
    hits = index.hits(tokens)
    common = template_runs(index.counts(hits), len(prompts))
    yield from ((row, prompt) for row, prompt, _ in index.links(hits, common))
    keys = bands(tokens, tokenize([""] * len(prompts)), template_words(tokens))
    bare = [Pair((Message("user", prompt),), "") for prompt in prompts]
    for one, other in zip(*(side.tolist() for side in candidates(keys, 0)), strict=True):
        if near_pairs(bare[one], bare[other]):
            yield one, other
