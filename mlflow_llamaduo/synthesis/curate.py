"""Keep the new pairs that are new and clean.

Order: rows that give a test prompt away, then copies of known rows and of each other. MinHash LSH (rensa) finds
the candidates, `near_pairs` decides; of two near copies the first stays (the authors' script drops both).
"""

from collections.abc import Iterable

from rensa import RMinHash, RMinHashLSH

from mlflow_llamaduo.core.overlap import LeakIndex, near_pairs, words
from mlflow_llamaduo.core.records import Grown, Pair, PairSet, Rejected

PERMUTATIONS = 128
BANDS = 32
"""32 bands of 4 rows: a pair at Jaccard 0.7 is a candidate with probability 0.9998, at 0.3 with 0.23."""


def curate(new: Iterable[Pair], *, known: PairSet, test: PairSet) -> Grown:
    """Sort new pairs into kept and rejected.

    Args:
        new: pairs as the generator wrote them.
        known: the training pairs so far.
        test: the held-out pairs; nothing near their prompts is kept.
    """
    leaks, index = LeakIndex(test), _Index()
    for pair in known:
        index.add(pair)
    kept: list[Pair] = []
    rejected: list[Rejected] = []
    for pair in new:
        if (given_away := leaks.leak(pair)) is not None:
            rejected.append(Rejected(pair, "leak", f"shares its text with test pair {given_away}"))
        elif (twin := index.near(pair)) is not None:
            rejected.append(Rejected(pair, "duplicate", f"near copy of {twin.source} pair {twin.id}"))
        else:
            index.add(pair)
            kept.append(pair)
    return Grown(tuple(kept), tuple(rejected))


class _Index:
    def __init__(self) -> None:
        self._pairs: list[Pair] = []
        self._lsh = RMinHashLSH(threshold=0.7, num_perm=PERMUTATIONS, num_bands=BANDS)

    def add(self, pair: Pair) -> None:
        self._lsh.insert(len(self._pairs), _signature(pair))
        self._pairs.append(pair)

    def near(self, pair: Pair) -> Pair | None:
        candidates = (self._pairs[number] for number in self._lsh.query(_signature(pair)))
        return next((candidate for candidate in candidates if near_pairs(candidate, pair)), None)


def _signature(pair: Pair) -> RMinHash:
    signature = RMinHash(num_perm=PERMUTATIONS, seed=42)
    signature.update(sorted(set(words(pair.instruction))))  # the sets that `near_pairs` compares
    return signature
