"""From comparisons to duels: does a response win, tie or lose against its opponent?

A judge prefers the answer that stands first (or second) whatever it says, so every two answers are compared in both
orders. What the orders do not agree on is a flip: half a win, and counted as a flip. A prompt's points are the mean
over its duels (win 100, tie or flip 50, loss 0): K answers to one prompt are not independent, so whoever wants an
interval of the win rate makes it over prompts, as `core.scoring` does. A duel that is not judged has no points.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from mlflow_llamaduo.core.records import Comparison
from mlflow_llamaduo.core.scoring import prompt_of

Result = Literal["win", "tie", "loss", "flip", "unjudged"]

POINTS: Mapping[Result, float] = {"win": 100.0, "tie": 50.0, "flip": 50.0, "loss": 0.0}


@dataclass(frozen=True, slots=True)
class Duel:
    """One response against its opponent, both orders taken together."""

    response_id: str
    result: Result

    @property
    def points(self) -> float | None:
        """100 for a win, 50 for a tie or a flip, 0 for a loss; None for what was not judged."""
        return POINTS.get(self.result)


@dataclass(frozen=True, slots=True)
class Duels:
    """All duels of one model against one opponent, by one judge.

    `flip_rate` is a percentage of the judged duels. `first_preference` is the percentage of askings with a winner
    that the answer in the first place won: 50 is fair. Both are None where there is nothing to take a share of.
    `points` has each prompt with its mean points, 0 to 100; a prompt without a judged duel is not in it.
    """

    judge: str
    opponent: str
    wins: int
    ties: int
    losses: int
    flips: int
    unjudged: int
    flip_rate: float | None
    first_preference: float | None
    points: tuple[tuple[str, float], ...]

    @property
    def judged(self) -> int:
        """Duels with an outcome."""
        return self.wins + self.ties + self.losses + self.flips


def duels(comparisons: Iterable[Comparison]) -> tuple[Duel, ...]:
    """One duel for each response, in the order of the ids. An order that was never asked is one without an outcome.

    Raises:
        ValueError: the comparisons are of several judges or opponents, or one order was asked twice.
    """
    comparisons = tuple(comparisons)
    if len({(c.judge, c.opponent) for c in comparisons}) > 1:
        raise ValueError("duels are of one judge and one opponent, not of several")
    orders: dict[str, dict[bool, Comparison]] = defaultdict(dict)
    for comparison in comparisons:
        own = orders[comparison.response_id]
        if comparison.first in own:
            raise ValueError(f"{comparison.response_id} was compared twice in the same order")
        own[comparison.first] = comparison
    return tuple(Duel(response_id, _result(orders[response_id])) for response_id in sorted(orders))


def tally(comparisons: Iterable[Comparison]) -> Duels:
    """Counts, rates and points of all duels; see `duels` for what is refused."""
    comparisons = tuple(comparisons)
    fought = duels(comparisons)
    counts: dict[Result, int] = defaultdict(int)
    points: dict[str, list[float]] = defaultdict(list)
    for duel in fought:
        counts[duel.result] += 1
        if duel.points is not None:
            points[prompt_of(duel.response_id)].append(duel.points)
    decided = [c.first == (c.outcome == "win") for c in comparisons if c.outcome in ("win", "loss")]
    return Duels(
        judge=comparisons[0].judge if comparisons else "",
        opponent=comparisons[0].opponent if comparisons else "",
        wins=counts["win"],
        ties=counts["tie"],
        losses=counts["loss"],
        flips=counts["flip"],
        unjudged=counts["unjudged"],
        flip_rate=_percent(counts["flip"], len(fought) - counts["unjudged"]),
        first_preference=_percent(sum(decided), len(decided)),
        points=tuple((prompt, fmean(points[prompt])) for prompt in sorted(points)),
    )


def _result(orders: Mapping[bool, Comparison]) -> Result:
    first, second = (orders[place].outcome if place in orders else None for place in (True, False))
    if first is None or second is None:
        return "unjudged"
    return first if first == second else "flip"


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None
