import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.gate import FIGURES, GateRule, decide
from mlflow_llamaduo.core.records import Judgement, Verdict
from mlflow_llamaduo.core.scoring import prompt_of, score
from tests.unit.builders import unjudged, verdict

PERCENT = st.floats(0, 100)
JUDGEMENTS = st.lists(
    st.one_of(
        st.builds(verdict, st.sampled_from(["p/0", "p/1", "q/0", "r/0"]), PERCENT, similarity=PERCENT),
        st.builds(unjudged, st.sampled_from(["p/0", "q/1", "s/0"])),
    )
)


def test_the_interval_is_students_t_over_the_prompts_means() -> None:
    card = score([verdict("p/0", 60), verdict("q/0", 70), verdict("r/0", 80)])

    half = 4.302653 * 10 / 3**0.5  # t(0.975; 2 degrees of freedom) * standard deviation / root of n
    assert card.precision.mean == 70
    assert card.precision.spread == pytest.approx(10)
    assert (card.precision.low, card.precision.high) == pytest.approx((70 - half, 70 + half))


def test_k_answers_to_one_prompt_are_one_unit_and_make_the_interval_no_narrower() -> None:
    means = {"p": 60, "q": 70, "r": 80}
    one_answer = score([verdict(f"{prompt}/0", mean) for prompt, mean in means.items()])
    four_answers = score([verdict(f"{prompt}/{k}", mean) for prompt, mean in means.items() for k in range(4)])

    assert four_answers.precision == one_answer.precision
    assert (four_answers.prompts, four_answers.responses) == (3, 12)


def test_m_judgings_are_averaged_before_a_threshold_is_applied() -> None:
    card = score([verdict("p/0", value, repeat=repeat) for repeat, value in enumerate([20, 40, 90])])

    assert card.precision.mean == 50
    assert card.precision.coverage_50 == 100


@pytest.mark.parametrize(
    ("value", "at_50", "at_70"), [(49.9, 0, 0), (50, 100, 0), (50.1, 100, 0), (69.9, 100, 0), (70, 100, 100)]
)
def test_coverage_counts_a_response_that_scores_just_the_threshold(value: float, at_50: float, at_70: float) -> None:
    card = score([verdict("p/0", value, similarity=0)])

    assert (card.precision.coverage_50, card.precision.coverage_70) == (at_50, at_70)
    assert (card.similarity.coverage_50, card.similarity.coverage_70) == (0, 0)


def test_coverage_is_the_share_of_responses_and_not_of_judgings() -> None:
    judgements = [verdict("p/0", 90, repeat=repeat) for repeat in range(9)] + [verdict("p/1", 10)]

    assert score(judgements).precision.coverage_50 == 50


def test_an_unjudged_response_is_counted_and_is_never_a_zero() -> None:
    card = score([verdict("p/0", 80), unjudged("p/0", repeat=1), unjudged("q/0"), unjudged("q/0", repeat=1)])

    assert card.precision.mean == card.similarity.mean == 80
    assert card.precision.coverage_70 == 100
    assert (card.prompts, card.responses, card.judgings, card.unjudged) == (2, 2, 4, 3)
    assert card.judged_share == 25


@pytest.mark.parametrize("judgements", [[], [unjudged("p/0"), unjudged("q/0")]])
def test_without_a_single_verdict_there_are_no_scores_and_no_share_judged(judgements: list[Judgement]) -> None:
    card = score(judgements)

    assert card.judged_share == 0
    assert card.precision.mean == card.precision.high == 0
    assert not decide(card, [GateRule("judged_share", 1)], {}).passed


def test_a_single_prompt_says_nothing_about_chance() -> None:
    card = score([verdict("p/0", 90), verdict("p/1", 80)])

    assert (card.precision.low, card.precision.high) == (0, 100)


def test_judgings_of_two_judges_are_refused() -> None:
    with pytest.raises(ValueError, match=r"claude.*gpt-4o"):
        score([verdict("p/0", 80, judge="gpt-4o"), unjudged("p/1", judge="claude")])


def test_the_figures_are_the_gates_but_for_the_one_that_needs_a_baseline() -> None:
    assert set(score([]).figures()) == set(FIGURES) - {"gain_over_base"}


def test_a_response_id_with_slashes_in_the_prompts_part_belongs_to_that_prompt() -> None:
    assert prompt_of("a/b/3") == "a/b"


@given(JUDGEMENTS, st.randoms())
def test_the_order_of_the_judgings_does_not_matter(judgements: list[Judgement], rng: random.Random) -> None:
    shuffled = list(judgements)
    rng.shuffle(shuffled)
    one, other = score(judgements), score(shuffled)

    assert one.figures() == pytest.approx(other.figures())
    assert (one.precision.low, one.precision.high) == pytest.approx((other.precision.low, other.precision.high))


@given(JUDGEMENTS)
def test_every_figure_and_bound_lies_from_0_to_100(judgements: list[Judgement]) -> None:
    card = score(judgements)

    assert all(0 <= value <= 100 for value in card.figures().values())
    for part in (card.precision, card.similarity):
        assert 0 <= part.low <= part.high <= 100
        assert part.coverage_70 <= part.coverage_50


@given(st.lists(PERCENT, min_size=2, max_size=8), st.integers(1, 4))
def test_the_interval_holds_the_mean_when_every_prompt_has_as_many_answers(values: list[float], k: int) -> None:
    card = score(
        [verdict(f"p{number}/{sample}", value) for number, value in enumerate(values) for sample in range(k)]
    )

    assert card.precision.low - 1e-9 <= card.precision.mean <= card.precision.high + 1e-9


def test_verdicts_compare_by_value() -> None:
    assert verdict("p/0", 80) == Verdict("p/0", "judge", 0, 80, 80)
