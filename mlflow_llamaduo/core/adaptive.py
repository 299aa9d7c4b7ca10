"""When to stop asking a judge: once the judgings that are left can no longer change the decision.

After m of M judgings a response's mean over all M is known but for noise of variance s2 * (M - m) / (M * m), where s2
is the judge's own, pooled over the responses (the predictive variance of a mean of M when m have been seen). So many
endings are drawn, the gate is held against each, and asking stops when all of them agree. That the decision is the
one of all M judgings, and how many calls are saved, is measured in benchmarks/gate.py.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from mlflow_llamaduo.core.gate import Against, GateRule, holds
from mlflow_llamaduo.core.interval import Floats
from mlflow_llamaduo.core.records import Judgement, Response, Verdict
from mlflow_llamaduo.core.scoring import SCORES, Table, score

FIRST = 2
"""Judgings of every response before anything can be settled: from one alone the judge's noise is not known."""

ENDINGS = 400
"""Draws that must all agree: a change as likely as 1 in 100 is overlooked 2 times in 100."""


def settled(
    judgements: Iterable[Judgement],
    responses: Sequence[Response],
    *,
    repeats: int,
    gate: Sequence[GateRule],
    against: Against,
) -> bool:
    """Whether the decision is the same however the judgings that are left turn out.

    Args:
        judgements: those there are, as many of each response.
        responses: what is judged.
        repeats: M, the judgings that there may be of each.
        gate: the rules.
        against: baselines and duels, as `decide` takes them.
    """
    judgements = tuple(judgements)
    card = score(judgements, responses)
    asked = card.judgings / max(1, card.responses)
    if asked >= repeats:
        return True
    if asked < FIRST or not card.scored:
        return False
    return settled_table(card.table, *_noise(judgements), repeats=repeats, gate=gate, against=against)


def settled_table(
    table: Table, seen: Floats, noise: dict[str, float], *, repeats: int, gate: Sequence[GateRule], against: Against
) -> bool:
    """The same of arrays: `seen` verdicts of each response, `noise` the judge's variance by score."""
    draw = np.random.default_rng(0)  # the same judgings are always settled alike
    left = np.maximum(repeats - seen, 0) / (repeats * seen)
    endings = {
        score: np.clip(
            table.scores[score] + draw.standard_normal((ENDINGS, len(seen))) * np.sqrt(noise[score] * left), 0, 100
        )
        for score in SCORES
    }
    outcomes = np.broadcast_to(holds(replace(table, scores=endings), gate, against), (ENDINGS,))
    return bool(outcomes.all() or not outcomes.any())


def _noise(judgements: Iterable[Judgement]) -> tuple[Floats, dict[str, float]]:
    """Verdicts of each response, in the order of `score`, and the pooled variance within responses by score."""
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for judgement in judgements:
        if isinstance(judgement, Verdict):
            verdicts[judgement.response_id].append(judgement)
    freedom = sum(len(own) - 1 for own in verdicts.values())
    noise = {}
    for name in SCORES:
        squares = sum(len(own) * float(np.var([getattr(v, name) for v in own])) for own in verdicts.values())
        noise[name] = squares / freedom if freedom else 100.0**2
    return np.array([len(verdicts[response]) for response in sorted(verdicts)], dtype=np.float64), noise
