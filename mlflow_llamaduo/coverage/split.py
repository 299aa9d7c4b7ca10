"""Split once, by digest: the same pairs fall on the same side on every machine.

Test only gates and dev only steers, so a pair of dev or train that gives a test prompt away is left out (in No
Robots one classification and one coding test prompt reuse a train prompt's text).
"""

from mlflow_llamaduo.core.overlap import LeakIndex
from mlflow_llamaduo.core.records import PairSet, digest
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.errors import DataError


def split(pairs: PairSet, *, test_rows: int, dev_rows: int) -> Split:
    """Part pairs into train, dev and test by the digest of their prompts.

    Raises:
        DataError: too few pairs for the split.
    """
    needed = test_rows + dev_rows + 1
    if len(pairs) < needed:
        raise DataError(
            f"{len(pairs)} pairs are too few: {test_rows} test and {dev_rows} dev rows and at least one to train "
            f"on need {needed}; add pairs or lower coverage.test_rows and coverage.dev_rows"
        )
    ranked = sorted(pairs, key=lambda pair: (digest("split", pair.instruction), pair.id))
    test = PairSet(tuple(ranked[:test_rows]))
    leaks = LeakIndex(test)
    clean = [pair for pair in ranked[test_rows:] if leaks.leak(pair) is None]
    dev, train = clean[:dev_rows], clean[dev_rows:]
    if not train:
        raise DataError("no pair is left to train on: all others share their text with the test pairs")
    return Split(PairSet(tuple(train)), PairSet(tuple(dev)), test)
