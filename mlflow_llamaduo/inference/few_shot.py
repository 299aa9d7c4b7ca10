"""Which train pairs stand before a prompt as examples when the base model is asked with few-shot examples."""

from statistics import median

from mlflow_llamaduo.core.records import Pair, PairSet


def examples(train: PairSet, count: int) -> tuple[Pair, ...]:
    """`count` pairs that people wrote, of the most usual length, with different responses before equal ones.

    Every prompt has the same ones, so that the baseline is one prompt a user could write. The same train pairs give
    the same examples in any order.
    """
    pairs = [pair for pair in train if not pair.synthetic]
    if not pairs:
        return ()
    usual = median(_length(pair) for pair in pairs)
    pairs.sort(key=lambda pair: (abs(_length(pair) - usual), pair.id))
    first = {pair.response: pair for pair in reversed(pairs)}  # of equal responses the most usual pair stays
    pairs.sort(key=lambda pair: pair is not first[pair.response])  # stable
    return tuple(pairs[:count])


def _length(pair: Pair) -> int:
    return len(pair.instruction) + len(pair.response)
