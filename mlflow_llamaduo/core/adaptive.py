"""When to stop asking a judge: once the judgings that are left can no longer change the decision.

After m of M judgings a response's mean over all M is known but for noise of variance s2 * (M - m) / (M * m), where s2
is the judge's own (the predictive variance of a mean of M when m have been seen). So many endings are drawn, the gate
is held against each, and asking stops when all of them agree. A response that has no verdict yet may still get any:
it is held at 0 and at 100. The judged share at the end is drawn as well, from the failures so far. That the decision
is the one of all M judgings, and how many calls are saved, is measured in benchmarks/gate.py.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.gate import decide, holds
from mlflow_llamaduo.core.interval import Floats
from mlflow_llamaduo.core.records import Judgement, Response, Verdict
from mlflow_llamaduo.core.rules import SCORES, Figure, GateRule
from mlflow_llamaduo.core.scoring import Scorecard, Table, score

FIRST = 2
"""Judgings of every response before anything can be settled: from one alone the judge's noise is not known."""

ENDINGS = 400
"""Draws that must all agree: a change as likely as 1 in 100 is overlooked 2 times in 100."""

SURE = 0.99
"""How many of the endings must agree on the judged share."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Seen:
    """What has been judged so far: a table of means, verdicts of each response, the judge's variance by score."""

    table: Table
    verdicts: Floats
    noise: dict[str, Floats]


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
    pairs = [rule for rule in gate if Figure.read(rule.figure).kind == "win_rate"]
    if pairs and not decide(card, pairs, against).passed:
        return True
    draw = np.random.default_rng(0)  # the same judgings are always settled alike
    seen = _seen(judgements, card)
    missing = sorted({j.response_id for j in judgements} - {row.response_id for row in card.scored})
    tables = [_with(seen, missing, card, responses, value) for value in (0.0, 100.0)] if missing else [seen]
    scores = np.concatenate([endings(each, draw, repeats=repeats, gate=gate, against=against) for each in tables])
    share = _share(card, draw, repeats, gate).mean()  # one draw in 400 is the prior's doubt, with not a failure seen
    return bool(not scores.any() or share <= 1 - SURE or (scores.all() and share >= SURE))


def endings(
    seen: Seen, draw: np.random.Generator, *, repeats: int, gate: Sequence[GateRule], against: Against
) -> Bools:
    """Whether the rules about scores hold, for each of so many endings."""
    left = np.maximum(repeats - seen.verdicts, 0) / (repeats * seen.verdicts)
    shape = (ENDINGS, len(seen.verdicts))
    moved = {name: draw.standard_normal(shape) * np.sqrt(seen.noise[name] * left) for name in SCORES}
    ended = {name: np.clip(seen.table.scores[name] + moved[name], 0, 100) for name in SCORES}
    return np.broadcast_to(holds(replace(seen.table, scores=ended), gate, against), (ENDINGS,))


def _share(card: Scorecard, draw: np.random.Generator, repeats: int, gate: Sequence[GateRule]) -> Bools:
    """Whether the judged share holds at the end, for each ending: failures go on as they began, within chance."""
    least = max((rule.at_least for rule in gate if rule.figure == "judged_share"), default=0.0)
    left = card.responses * repeats - card.judgings
    rate = draw.beta(card.unjudged + 0.5, card.judgings - card.unjudged + 0.5, ENDINGS)
    failed = card.unjudged + draw.binomial(left, rate)
    return np.asarray(100 * (1 - failed / (card.responses * repeats)) >= least - 1e-9)


def _seen(judgements: Iterable[Judgement], card: Scorecard) -> Seen:
    """A response's variance is the pool's, or its own where that is larger: a judge may doubt some answers only."""
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for judgement in judgements:
        if isinstance(judgement, Verdict):
            verdicts[judgement.response_id].append(judgement)
    given = [verdicts[response] for response in sorted(verdicts)]
    count = np.array([len(own) for own in given], dtype=np.float64)
    freedom = count.sum() - len(given)
    noise = {}
    for name in SCORES:
        squares = np.array([len(own) * float(np.var([getattr(v, name) for v in own])) for own in given])
        pooled = squares.sum() / freedom if freedom else 100.0**2
        noise[name] = np.maximum(pooled, squares / np.maximum(count - 1, 1))
    return Seen(card.table, count, noise)


def _with(seen: Seen, missing: Sequence[str], card: Scorecard, responses: Sequence[Response], value: float) -> Seen:
    """The same with a verdict of `value` on each response that has none."""
    made = [Verdict(response, card.judge, 0, value, value) for response in missing]
    known = [Verdict(row.response_id, card.judge, 0, row.similarity, row.precision) for row in card.scored]
    table = score([*made, *known], responses).table
    place = {row.response_id: number for number, row in enumerate(card.scored)}
    order = [place.get(response, -1) for response in sorted([*missing, *place])]
    noise = {name: np.append(values, 0.0)[order] for name, values in seen.noise.items()}
    return Seen(table, np.append(seen.verdicts, 1.0)[order], noise)
