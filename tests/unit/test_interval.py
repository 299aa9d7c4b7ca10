"""Intervals over prompts: against hand-worked values, and whether they keep their promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlflow_llamaduo.core.interval import of_differences, of_ratio, of_scores

SCORES = st.lists(st.floats(0, 100), min_size=2, max_size=20).map(np.array)


def test_fifteen_perfect_prompts_are_as_sure_as_jeffreys_interval_of_fifteen_hits() -> None:
    estimate = of_scores(np.full(15, 100.0), responses=15)

    assert estimate.low == pytest.approx(100 * stats.beta.ppf(0.025, 15.5, 0.5))
    assert estimate.high == 100


def test_hits_and_misses_alone_make_nearly_the_interval_of_a_proportion() -> None:
    """The variance of 0s and 100s is that of hits and misses: only the doubt about the variance is added."""
    values = np.array([100.0] * 30 + [0.0] * 10)
    estimate = of_scores(values, responses=40)
    proportion = stats.binomtest(30, 40).proportion_ci(method="wilson")

    assert estimate.value == 75
    assert estimate.low == pytest.approx(100 * proportion.low, abs=2.5)
    assert estimate.high == pytest.approx(100 * proportion.high, abs=2.5)


def test_scores_that_differ_little_are_told_more_exactly_than_hits_and_misses() -> None:
    close = of_scores(np.array([70.0, 80.0] * 10), responses=80)
    apart = of_scores(np.array([50.0, 100.0] * 10), responses=80)

    assert close.value == apart.value == 75
    assert close.high - close.low < apart.high - apart.low


def test_differences_have_students_t() -> None:
    estimate = of_differences(np.array([-1.0, 4.0, 9.0]))
    half = 4.302653 * 5 / 3**0.5  # t(0.975; 2 degrees of freedom) * standard deviation / root of n

    assert (estimate.value, estimate.spread) == pytest.approx((4, 5))
    assert (estimate.low, estimate.high) == pytest.approx((4 - half, 4 + half))


def test_at_a_bound_of_the_ratio_students_t_just_reaches_nought() -> None:
    own, its = np.array([80.0, 70, 95, 60, 88]), np.array([90.0, 88, 97, 80, 99])
    estimate = of_ratio(own, its)

    assert estimate.value == pytest.approx(100 * own.mean() / its.mean())
    for bound, side in ((estimate.low, "low"), (estimate.high, "high")):
        difference = of_differences(own - bound / 100 * its)
        assert getattr(difference, side) == pytest.approx(0, abs=1e-9)


def test_a_ratio_to_nothing_has_no_bound() -> None:
    estimate = of_ratio(np.array([50.0, 60.0]), np.array([0.0, 0.0]))

    assert (estimate.low, estimate.high) == (0, np.inf)
    assert np.isinf(estimate.value)


def test_a_ratio_to_next_to_nothing_is_one_to_nothing() -> None:
    estimate = of_ratio(np.array([50.0, 60.0, 70.0]), np.array([0.0, 0.0, 2.3e-309]))

    assert (estimate.low, estimate.high) == (0, np.inf)


def test_one_prompt_says_nothing_about_chance() -> None:
    one = np.array([90.0])

    assert (of_scores(one, 4).low, of_scores(one, 4).high) == (0, 100)
    assert (of_differences(one).low, of_differences(one).high) == (-np.inf, np.inf)
    assert (of_ratio(one, one).low, of_ratio(one, one).high) == (0, np.inf)


@given(SCORES, st.integers(1, 8))
def test_the_interval_of_scores_holds_the_mean_and_stays_in_range(values: np.ndarray, k: int) -> None:
    estimate = of_scores(values, k * len(values))

    assert 0 <= estimate.low <= estimate.value + 1e-9
    assert estimate.value - 1e-9 <= estimate.high <= 100


@given(SCORES)
def test_scores_turned_round_have_the_interval_turned_round(values: np.ndarray) -> None:
    one, other = of_scores(values, len(values)), of_scores(100 - values, len(values))

    assert (other.low, other.high) == pytest.approx((100 - one.high, 100 - one.low), abs=1e-6)


@given(st.lists(SCORES, min_size=1, max_size=4))
def test_many_outcomes_at_once_are_each_what_they_are_alone(rows: list[np.ndarray]) -> None:
    shortest = min(len(row) for row in rows)
    values = np.array([row[:shortest] for row in rows])
    together, ratio = of_scores(values, 2 * shortest), of_ratio(values, values[:1] + 1)

    for number, row in enumerate(values):
        assert together.low[number] == pytest.approx(of_scores(row, 2 * shortest).low)
        assert ratio.value[number] == pytest.approx(of_ratio(row, values[0] + 1).value)


@pytest.mark.parametrize("mean", [50, 65, 80])
def test_at_fifteen_prompts_the_interval_holds_the_true_mean_nearly_as_often_as_it_says(mean: float) -> None:
    """Prompts that mostly succeed (98 points) or fail (28), as in Table 1: benchmarks/gate.py has the whole of it."""
    rng = np.random.default_rng(0)
    chance = rng.beta((mean - 28) / 70, (98 - mean) / 70, size=(2000, 15))
    values = 28 + 70 * rng.binomial(4, chance) / 4
    estimate = of_scores(values, 60)
    held = ((estimate.low <= mean) & (mean <= estimate.high)).mean()

    assert 0.92 <= held <= 0.98
