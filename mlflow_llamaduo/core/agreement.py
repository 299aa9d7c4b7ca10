"""How far two sets of scores agree: a judge's and people's, two judges', or a judge's own before and after.

Points are those of the scale 0 to 100. A figure that a handful of responses cannot give, or responses that are all
alike, is None and `why` says so: it is never NaN, and never a zero that would pass for a finding.

Rank correlation and not Pearson's: people and judges use a scale differently, and a gate asks who is above whom.
Kappa beside raw agreement: where nearly all answers are good, two who call everything good agree by chance alone.
K answers to one prompt are not independent: the interval of a correlation is that of as many responses as prompts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import atanh, pi, sqrt, tanh
from statistics import NormalDist, fmean

Means = Mapping[str, float]
"""Scores from 0 to 100 by response id."""
Prompts = Mapping[str, str]
"""What tells prompts apart, by response id; a response that is not in it is to a prompt of its own."""

FEWEST = 4
"""Prompts below which a rank correlation has no interval, and says nothing."""
EACH: Prompts = {}
"""Every response is to a prompt of its own."""
TWO_SIDED = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation over `n` responses to `prompts` prompts, -1 to 1, with its 95 % interval."""

    n: int
    prompts: int
    rho: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Kappa:
    """Whether two agree on who is at least at `threshold`: raw agreement (0 to 100) and Cohen's kappa (-1 to 1).

    `above` is how many of the responses the one has there, and how many the other.
    """

    threshold: float
    above: tuple[int, int]
    agreement: float | None = None
    kappa: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two who scored the same `n` responses: order, mean absolute error, bias (the one minus the other), kappas."""

    n: int
    rank: Correlation
    error: float | None
    bias: float | None
    kappas: tuple[Kappa, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Share of responses, 0 to 100, that lie on both sides of a threshold."""

    threshold: float
    share: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeats of `n` responses: pooled standard deviation within a response, in points, and who is on both sides."""

    n: int
    points: float | None = None
    crossings: tuple[Crossing, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Swap:
    """Similarity after reference and response have traded places, which should be what it was before.

    `points` is the mean absolute difference over `n` responses, `by_chance` what repeats alone would make of it.
    """

    judge: str
    n: int = 0
    unjudged: int = 0
    points: float | None = None
    by_chance: float | None = None
    crossings: tuple[Crossing, ...] = ()
    why: str = ""


def agree(
    one: Means,
    other: Means,
    thresholds: Iterable[float],
    *,
    sides: tuple[str, str] = ("the judge", "people"),
    prompts: Prompts = EACH,
) -> Agreement:
    """How two agree on the responses that both have scored; `sides` are their names, for `why`."""
    ids = sorted(one.keys() & other.keys())
    ours, theirs = [one[key] for key in ids], [other[key] for key in ids]
    off = [x - y for x, y in zip(ours, theirs, strict=True)]
    return Agreement(
        len(ids),
        correlate(one, other, sides=sides, prompts=prompts),
        fmean(map(abs, off)) if off else None,
        fmean(off) if off else None,
        tuple(_kappa(ours, theirs, threshold) for threshold in thresholds),
    )


def correlate(one: Means, other: Means, *, sides: tuple[str, str], prompts: Prompts = EACH) -> Correlation:
    """Spearman's rho over the responses that are in both, and its 95 % interval (Bonett and Wright 2000)."""
    ids = sorted(one.keys() & other.keys())
    n, independent = len(ids), len({prompts.get(key, key) for key in ids})
    if independent < FEWEST:
        return Correlation(n, independent, why=f"{independent} prompts, at least {FEWEST} are needed")
    ranked = [one[key] for key in ids], [other[key] for key in ids]
    for name, values in zip(sides, ranked, strict=True):
        if min(values) == max(values):
            return Correlation(n, independent, why=f"{name} has the same value for all {n}")
    from scipy.stats import spearmanr  # a second that only a report pays

    rho = max(-1.0, min(1.0, float(spearmanr(*ranked).statistic)))
    # atanh(1) is infinite: a perfect order is taken as one in which two neighbours have changed places.
    most = 1 - 12 / (independent * (independent**2 - 1))
    z = atanh(max(-most, min(most, rho)))
    half = TWO_SIDED * sqrt((1 + rho * rho / 2) / (independent - 3))
    return Correlation(n, independent, rho, min(rho, tanh(z - half)), max(rho, tanh(z + half)))


def spread(judgings: Iterable[Sequence[float]], thresholds: Iterable[float]) -> Spread:
    """How far the judgings of one response lie apart; each item is a response's."""
    repeated = [own for own in judgings if len(own) > 1]
    if not repeated:
        return Spread(0, why="no response has two judgings")
    squares = sum((x - mean) ** 2 for own in repeated for mean in (fmean(own),) for x in own)
    points = sqrt(squares / sum(len(own) - 1 for own in repeated))
    return Spread(len(repeated), points, _crossings([(min(own), max(own)) for own in repeated], thresholds))


def traded(
    judge: str, before_after: Sequence[tuple[float | None, float | None]], spread: Spread, thresholds: Iterable[float]
) -> Swap:
    """What trading places changes: similarity before and after for each response, None where there was no score.

    Args:
        judge: who was asked.
        before_after: one judging each.
        spread: the judge's repeats. Two judgings differ by chance alone, by 2/sqrt(pi) of their standard deviation.
        thresholds: scores at which answers are called good enough.
    """
    both = [(one, other) for one, other in before_after if one is not None and other is not None]
    missing = len(before_after) - len(both)
    if not both:
        why = "no judging gave a score" if missing else "no response differs from its reference"
        return Swap(judge, unjudged=missing, why=why)
    return Swap(
        judge,
        len(both),
        missing,
        fmean(abs(one - other) for one, other in both),
        None if spread.points is None else 2 * spread.points / sqrt(pi),
        _crossings([(min(pair), max(pair)) for pair in both], thresholds),
    )


def _kappa(ours: Sequence[float], theirs: Sequence[float], threshold: float) -> Kappa:
    one, other = [x >= threshold for x in ours], [x >= threshold for x in theirs]
    n, above = len(one), (sum(one), sum(other))
    if not n:
        return Kappa(threshold, above, why="no response that both have scored")
    agreement = 100.0 * sum(x == y for x, y in zip(one, other, strict=True)) / n
    if all(count in (0, n) for count in above):
        return Kappa(threshold, above, agreement, why=f"each has all {n} on one side")
    from sklearn.metrics import cohen_kappa_score

    return Kappa(threshold, above, agreement, float(cohen_kappa_score(one, other)))


def _crossings(ranges: Sequence[tuple[float, float]], thresholds: Iterable[float]) -> tuple[Crossing, ...]:
    """Least and largest score of each response; at the threshold is above it, as in `scoring`."""
    return tuple(Crossing(t, 100.0 * sum(low < t <= high for low, high in ranges) / len(ranges)) for t in thresholds)
