"""Which train pairs are shown to the generator as examples: those of the kinds that dev failed come more often.

A kind is a category, a third of prompt length and a third of response length. How badly a kind fails is told by the
dev pairs: one minus the ROUGE-L of the local model's answers, no call to a judge. There are few dev pairs, so each of
the three sides of a kind is estimated alone and drawn towards the mean of all; their deviations from it add up.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mlflow_llamaduo.core.likeness import rouge_l
from mlflow_llamaduo.core.records import Pair, PairSet, Response, digest
from mlflow_llamaduo.core.text import words

STRENGTH = 2.0
"""A deviation of 0.5 from the mean failure makes a kind e times as likely to be drawn, or as unlikely."""
DOUBT = 2.0
"""Dev pairs of average failure that are added to every side of a kind."""

Side = tuple[str, object]


def failures(responses: Iterable[Response]) -> dict[str, float]:
    """Of every dev pair, by its id, how far the answers are from the reference: 0 (the same) to 1."""
    missed: dict[str, list[float]] = defaultdict(list)
    for response in responses:
        missed[response.pair_id].append(1 - rouge_l(words(response.reference), words(response.text)))
    return {pair_id: float(np.mean(own)) for pair_id, own in missed.items()}


def draw(seeds: Sequence[Pair], count: int, *, batch: int, dev: PairSet, failed: Mapping[str, float]) -> list[Pair]:
    """`count` examples, none twice before all have been used.

    Args:
        seeds: the train pairs that people wrote.
        count: how many are wanted.
        batch: the round's number; another batch has another order.
        dev: pairs whose failures are known.
        failed: what `failures` found of them; empty: all kinds alike.

    Returns:
        The examples. The order is one of digests: the same on every machine.
    """
    weights = _weights(seeds, dev, failed)
    drawn: list[Pair] = []
    turn = 0
    while len(drawn) < count:
        chance = {pair.id: (int(digest("seed", batch, turn, pair.id), 16) + 1) / 2**64 for pair in seeds}
        ranked = sorted(seeds, key=lambda pair: (-(chance[pair.id] ** (1 / weights[pair.id])), pair.id))
        drawn += ranked[: count - len(drawn)]
        turn += 1
    return drawn


def _weights(seeds: Sequence[Pair], dev: PairSet, failed: Mapping[str, float]) -> dict[str, float]:
    known = [pair for pair in dev if pair.id in failed]
    if not known:
        return dict.fromkeys((pair.id for pair in seeds), 1.0)
    edges = [
        np.quantile([len(text) for text in texts], [1 / 3, 2 / 3])
        for texts in ([pair.instruction for pair in seeds], [pair.response for pair in seeds])
    ]

    def sides(pair: Pair) -> tuple[Side, ...]:
        prompt, response = (
            int(np.searchsorted(edge, len(text)))
            for edge, text in zip(edges, (pair.instruction, pair.response), strict=True)
        )
        return ("category", pair.category), ("prompt", prompt), ("response", response)

    mean = float(np.mean([failed[pair.id] for pair in known]))
    total: dict[Side, float] = defaultdict(lambda: DOUBT * mean)
    count: dict[Side, float] = defaultdict(lambda: DOUBT)
    for pair in known:
        for side in sides(pair):
            total[side] += failed[pair.id]
            count[side] += 1
    return {
        pair.id: float(np.exp(STRENGTH * sum(total[side] / count[side] - mean for side in sides(pair))))
        for pair in seeds
    }
