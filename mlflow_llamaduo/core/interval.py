"""Estimates over prompts, with 95 % intervals that keep their promise at 15 of them.

The unit of chance is the prompt: K answers to one prompt are not independent, so every interval is made of one value
a prompt. Two kinds, both vectorized over leading axes (docs/explanation/judging.md; measured in benchmarks/gate.py):

`of_scores`: a mean of values that lie from 0 to 100. Jeffreys' beta interval on the effective number of responses
(Korn and Graubard 1998, Survey Methodology 24; Franco et al. 2019, J. Survey Statistics and Methodology 7).
Student's t and every bootstrap are too sure of a mean near 100 with a failure or two: they cannot see a failure that
the sample happens to lack.

`of_differences` and `of_ratio`: two models on the same prompts, paired. Student's t, and for the ratio Fieller's
theorem, which is the same t on `numerator - r * denominator`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TAIL = 0.025
FLAT = 1e-9
"""A standard deviation, or a mean of scores, that is none."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval, the standard deviation over prompts, and how many prompts it is from.

    Numbers, or arrays of them where the values had leading axes.
    """

    value: Any
    low: Any
    high: Any
    spread: Any
    prompts: int

    def above(self, least: float, *, by: str) -> Any:
        """Whether the figure, or with `by="lower_bound"` its lower bound, is at least `least`."""
        return (self.low if by == "lower_bound" else self.value) >= least - 1e-9


def of_scores(values: Floats, responses: int) -> Estimate:
    """The mean of scores from 0 to 100.

    Args:
        values: one a prompt, on the last axis.
        responses: how many different responses they are means of: no interval is narrower than so many independent
            ones allow.
    """
    from scipy import stats

    prompts = values.shape[-1]
    mean, spread = _moments(values)
    if prompts < 2:
        return _plain(mean, np.zeros_like(mean), np.full_like(mean, 100.0), spread, prompts)
    share = np.clip(mean / 100, 0.0, 1.0)
    variance = np.maximum((spread / 100) ** 2 / prompts, 1e-12)
    fewer = (stats.norm.isf(TAIL) / stats.t.isf(TAIL, prompts - 1)) ** 2  # the variance is itself estimated
    effective = np.minimum(share * (1 - share) / variance * fewer, responses)
    # All at 0 or at 100 is no variance and no information about it: so many independent responses, then.
    effective = np.where(share * (1 - share) < 1e-9, responses, effective)
    hits, misses = share * effective, (1 - share) * effective
    low = np.where(hits > 0, 100 * stats.beta.ppf(TAIL, hits + 0.5, misses + 0.5), 0.0)
    high = np.where(misses > 0, 100 * stats.beta.isf(TAIL, hits + 0.5, misses + 0.5), 100.0)
    # Jeffreys' interval is about the share's posterior: at the very ends it can miss the mean itself.
    return _plain(mean, np.minimum(low, mean), np.maximum(high, mean), spread, prompts)


def of_differences(values: Floats) -> Estimate:
    """The mean of paired differences, one a prompt on the last axis, in points; unbounded for a single prompt.

    Differences that are all the same say nothing of their spread: see `_unseen`.
    """
    from scipy import stats

    prompts = values.shape[-1]
    mean, spread = _moments(values)
    if prompts < 2:
        return _plain(mean, np.full_like(mean, -np.inf), np.full_like(mean, np.inf), spread, prompts)
    half = stats.t.isf(TAIL, prompts - 1) * spread / np.sqrt(prompts)
    half = np.where(spread > FLAT, half, _unseen(prompts))
    return _plain(mean, mean - half, mean + half, spread, prompts)


def of_ratio(numerator: Floats, denominator: Floats) -> Estimate:
    """100 times the ratio of two means, paired by prompt (Fieller 1954).

    The bounds are the r at which Student's t no longer tells `numerator - r * denominator` from 0. Where it does not
    even tell the denominator from 0 there is no bound: 0 and infinity. The spread is that of the residuals, in
    points of the numerator.
    """
    from scipy import stats

    prompts = numerator.shape[-1]
    up, down = numerator.mean(axis=-1), denominator.mean(axis=-1)
    there = down > FLAT
    whole = np.where(there, down, 1.0)
    with np.errstate(all="ignore"):
        ratio = np.where(there, up / whole, np.inf)
        residual = numerator - np.where(there, ratio, 0.0)[..., None] * denominator
        spread = _moments(residual)[1]
        if prompts < 2:
            return _plain(100 * ratio, np.zeros_like(ratio), np.full_like(ratio, np.inf), spread, prompts)
        t2 = stats.t.isf(TAIL, prompts - 1) ** 2 / prompts
        a = down**2 - t2 * _covariance(denominator, denominator)
        b = up * down - t2 * _covariance(numerator, denominator)
        c = up**2 - t2 * _covariance(numerator, numerator)
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        bounded, flat = (a > 0) & there, _unseen(prompts) / whole
        low = np.where(bounded, np.where(spread > FLAT, (b - root) / a, ratio - flat), 0.0)
        high = np.where(bounded, np.where(spread > FLAT, (b + root) / a, ratio + flat), np.inf)
    return _plain(100 * ratio, 100 * np.maximum(low, 0.0), 100 * high, spread, prompts)


def _unseen(prompts: int) -> float:
    """Points by which a mean may be off that no prompt of the sample differs from.

    Prompts that are otherwise, by 100 points at most, may be so many (the exact bound of a share of which none was
    seen) and be missed all the same. Without it two models that are the same would surely be no worse than another.
    """
    return float(100 * (1 - TAIL ** (1 / prompts)))


def _plain(value: Floats, low: Floats, high: Floats, spread: Floats, prompts: int) -> Estimate:
    """Numbers where there are no leading axes, instead of arrays without axes."""
    number, least, most, apart = (np.asarray(part)[()] for part in (value, low, high, spread))
    return Estimate(number, least, most, apart, prompts)


def _moments(values: Floats) -> tuple[Floats, Floats]:
    spread = values.std(axis=-1, ddof=1) if values.shape[-1] > 1 else np.zeros(values.shape[:-1])
    return values.mean(axis=-1), np.asarray(spread)


def _covariance(one: Floats, other: Floats) -> Floats:
    centred = (one - one.mean(axis=-1, keepdims=True)) * (other - other.mean(axis=-1, keepdims=True))
    return np.asarray(centred.sum(axis=-1) / (one.shape[-1] - 1))
