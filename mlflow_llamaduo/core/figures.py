"""What a gate asks for, measured: figures by their names, each with its 95 % interval.

A figure is one of scores alone, or beside another model on the same prompts by the same judge, or of duels. What
cannot be measured is `Absent` with its reason, and passes nothing but where there is no champion yet: a gate is most
easily passed by what is missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mlflow_llamaduo.core.interval import FLAT, Estimate, Floats, of_differences, of_ratio, of_scores
from mlflow_llamaduo.core.pairwise import Duels
from mlflow_llamaduo.core.rules import Figure
from mlflow_llamaduo.core.scoring import NOTHING, Scorecard, Table

FEWEST_IN_A_SLICE = 5
"""Prompts of a slice that is held against the gate: fewer say nothing."""

LEAST_COMMON = 0.95
"""Share of the candidate's prompts that a model it is compared with must have verdicts on, and of its duels that must
have an outcome: what a judge leaves out is not left out by chance."""


@dataclass(frozen=True, slots=True)
class Against:
    """What a candidate is held against: other models on the same prompts by the same judge, and its duels."""

    baselines: Mapping[str, Scorecard] = field(default_factory=dict)
    duels: Mapping[str, Duels] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Absent:
    """There is nothing to measure."""

    why: str
    passes: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, and what is to be said about it."""

    estimate: Estimate
    note: str = ""


def measured(figure: Figure, table: Table, against: Against) -> Measured | Absent:
    """A figure of scores. Leading axes of the table go through."""
    if not table.prompts:
        return Absent("no response has a verdict")
    if figure.kind == "mean":
        return Measured(table.mean(figure.score))
    if figure.kind == "coverage":
        return Measured(table.coverage(figure.score, figure.threshold))
    if figure.kind == "worst_slice":
        return _worst_slice(figure.score, table)
    return _beside(figure, table, against)


def _beside(figure: Figure, table: Table, against: Against) -> Measured | Absent:
    """A figure that another model is needed for, on the prompts that both have a verdict on."""
    other = against.baselines.get(figure.other)
    if other is None and figure.other == "champion":
        return Absent("there is no champion yet", passes=True)
    if other is None:
        raise ValueError(f"the gate asks for {figure.kind} beside {figure.other}, which has no scorecard")
    judged = set(other.table.prompts)
    common = [prompt for prompt in table.prompts if prompt in judged]
    if len(common) < LEAST_COMMON * len(table.prompts):  # what is missing may be what the candidate fails at
        return Absent(f"only {len(common)} of {len(table.prompts)} prompts have a verdict on {figure.other} too")
    own, its = table.on(figure.score, common), other.table.on(figure.score, common)
    if figure.kind == "perf_matching" and not its.mean() > FLAT:
        return Absent(f"{figure.other} scores 0 itself: there is nothing to match")
    apart = len(set(table.prompts) | set(other.table.prompts)) - len(common)
    note = f"on {len(common)} prompts; {apart} are judged for one of the two only" if apart else ""
    make: Callable[[Floats, Floats], Estimate] = of_ratio if figure.kind == "perf_matching" else _difference
    return Measured(make(own, np.broadcast_to(its, own.shape)), note)


def _difference(own: Floats, its: Floats) -> Estimate:
    return of_differences(own - its)


def _worst_slice(score: str, table: Table) -> Measured | Absent:
    """The least mean over the slices, and the least bounds."""
    held = {name: table.part(name).mean(score) for name in table.names if table.size(name) >= FEWEST_IN_A_SLICE}
    if not held:
        return Measured(table.mean(score), f"no slice has {FEWEST_IN_A_SLICE} prompts: all of them")
    values, lows, highs = (np.array([getattr(e, part) for e in held.values()]) for part in ("value", "low", "high"))
    note = ""
    if values.ndim == 1:
        worst = list(held)[int(values.argmin())]
        note = f"{worst}, {held[worst].prompts} prompts"
    return Measured(
        Estimate(values.min(axis=0), lows.min(axis=0), highs.min(axis=0), 0.0, min(e.prompts for e in held.values())),
        note,
    )


def duelled(opponent: str, card: Scorecard, against: Against) -> Measured | Absent:
    duels = against.duels.get(opponent)
    if duels is None and opponent == "champion":
        return Absent("there is no champion yet", passes=True)
    if duels is None:
        raise ValueError(f"the gate asks for the win rate over {opponent}, and nothing was compared")
    if duels.judged < LEAST_COMMON * (duels.judged + duels.unjudged) or not duels.points:
        return Absent(f"only {duels.judged} of {duels.judged + duels.unjudged} pairs with {opponent} have an outcome")
    return Measured(win_rate(duels, card), f"{duels.flip_rate or 0:.0f} % flips")


def win_rate(duels: Duels, card: Scorecard) -> Estimate:
    """Mean points over prompts: 100 for a win, 50 for a tie or a flip; from 0 prompts where no pair has an outcome.

    Args:
        duels: what became of the pairs.
        card: the candidate's scores: they say how many of its answers are evidence of their own.
    """
    points = np.array([points for _, points in duels.points])
    own = int(card.table.own.sum()) or duels.judged
    return of_scores(points, min(duels.judged, own)) if len(points) else NOTHING
