import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.gate import decide
from mlflow_llamaduo.core.interval import of_scores
from mlflow_llamaduo.core.records import Judgement, Response, Verdict
from mlflow_llamaduo.core.rules import GateRule
from mlflow_llamaduo.core.scoring import perf_matching, prompt_of, score
from tests.unit.builders import response, unjudged, verdict

MEANS = {"p": 60.0, "q": 70.0, "r": 80.0}

PERCENT = st.floats(0, 100)
JUDGEMENTS = st.lists(
    st.one_of(
        st.builds(verdict, st.sampled_from(["p/0", "p/1", "q/0", "r/0"]), PERCENT, similarity=PERCENT),
        st.builds(unjudged, st.sampled_from(["p/0", "q/1", "s/0"])),
    )
)


def test_the_interval_is_over_the_prompts_means() -> None:
    card = score([verdict("p/0", 60), verdict("q/0", 70), verdict("r/0", 80)])

    assert card.precision == of_scores(np.array([60.0, 70.0, 80.0]), 3)
    assert card.precision.spread == pytest.approx(10)


def test_k_answers_to_one_prompt_are_one_unit() -> None:
    judgements = [verdict(f"{prompt}/{k}", mean) for prompt, mean in MEANS.items() for k in range(4)]
    card = score(judgements)

    assert card.precision == of_scores(np.array(list(MEANS.values())), 12)
    assert (card.prompts, card.responses, card.precision.prompts) == (3, 12, 3)


def test_k_times_the_same_answer_is_no_more_evidence_than_once() -> None:
    judgements = [verdict(f"{prompt}/{k}", mean) for prompt, mean in MEANS.items() for k in range(4)]
    same = [response("the same", pair_id=prompt, sample=k) for prompt in MEANS for k in range(4)]

    assert score(judgements, same).precision == score([verdict(f"{p}/0", m) for p, m in MEANS.items()]).precision


def test_a_prompt_with_unjudged_answers_counts_as_much_as_one_without() -> None:
    judged = [verdict(f"p/{k}", 100) for k in range(4)]

    assert score([*judged, verdict("q/0", 40), unjudged("q/1")]).precision.value == 70


def test_m_judgings_are_averaged_before_a_threshold_is_applied() -> None:
    card = score([verdict("p/0", value, repeat=repeat) for repeat, value in enumerate([20, 40, 90])])

    assert card.precision.value == 50
    assert card.coverage("precision", 50).value == 100


@pytest.mark.parametrize(
    ("value", "at_50", "at_70"), [(49.9, 0, 0), (50, 100, 0), (50.1, 100, 0), (69.9, 100, 0), (70, 100, 100)]
)
def test_coverage_counts_a_response_that_scores_just_the_threshold(value: float, at_50: float, at_70: float) -> None:
    card = score([verdict("p/0", value, similarity=0)])

    assert [card.coverage("precision", at).value for at in (50, 70)] == [at_50, at_70]
    assert [card.coverage("similarity", at).value for at in (50, 70)] == [0, 0]


def test_coverage_is_the_share_of_responses_and_not_of_judgings() -> None:
    judgements = [verdict("p/0", 90, repeat=repeat) for repeat in range(9)] + [verdict("p/1", 10)]

    assert score(judgements).coverage("precision", 50).value == 50


def test_an_unjudged_response_is_counted_and_is_never_a_zero() -> None:
    card = score([verdict("p/0", 80), unjudged("p/0", repeat=1), unjudged("q/0"), unjudged("q/0", repeat=1)])

    assert card.precision.value == card.similarity.value == 80
    assert card.coverage("precision", 70).value == 100
    assert (card.prompts, card.responses, card.judgings, card.unjudged) == (2, 2, 4, 3)
    assert card.judged_share == 25


@pytest.mark.parametrize("judgements", [[], [unjudged("p/0"), unjudged("q/0")]])
def test_without_a_single_verdict_there_are_no_scores_and_no_share_judged(judgements: list[Judgement]) -> None:
    card = score(judgements)

    assert card.judged_share == 0
    assert card.precision.value == card.precision.high == card.precision.prompts == 0
    assert not decide(card, [GateRule("judged_share", 1)], Against()).passed


def test_a_single_prompt_says_nothing_about_chance() -> None:
    card = score([verdict("p/0", 90), verdict("p/1", 80)])

    assert (card.precision.low, card.precision.high) == (0, 100)


def test_judgings_of_two_judges_are_refused() -> None:
    with pytest.raises(ValueError, match=r"claude.*gpt-4o"):
        score([verdict("p/0", 80, judge="gpt-4o"), unjudged("p/1", judge="claude")])


def test_coverage_is_told_at_any_threshold() -> None:
    card = score([verdict("p/0", 81, similarity=20)])

    assert set(card.figures([80])) == {
        *("precision_mean", "similarity_mean", "precision_coverage_80", "similarity_coverage_80", "judged_share")
    }
    assert (card.figures([80])["precision_coverage_80"], card.figures([80])["similarity_coverage_80"]) == (100, 0)


def told(number: int, **more: Any) -> Response:
    return replace(response(pair_id=f"p{number:02d}"), instruction="x" * number, **more)


def test_slices_are_category_and_source_where_they_differ_and_thirds_by_length() -> None:
    responses = [told(n, category="a" if n % 2 else "b", source="coverage") for n in range(15)]
    card = score([verdict(r.id, 90 if r.category == "a" else 30) for r in responses], responses)

    assert {name: len(part.prompts) for name, part in card.slices.items()} == {
        **{"category=a": 7, "category=b": 8},
        **{"length=short": 5, "length=middle": 5, "length=long": 5},
    }
    assert card.slices["category=a"].mean("precision").value == 90
    assert card.slices["length=short"].prompts == tuple(f"p{n:02d}" for n in range(5))


def test_few_prompts_are_not_cut_by_length() -> None:
    responses = [told(n) for n in range(14)]

    assert score([verdict(r.id, 50) for r in responses], responses).slices == {}


@given(st.floats(0, 100), st.floats(0.1, 100))
def test_perf_matching_is_the_share_of_the_service_llms_score(local: float, service_llm: float) -> None:
    assert perf_matching(local, service_llm) * service_llm == pytest.approx(100 * local)


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
    for name, part in (("precision", card.precision), ("similarity", card.similarity)):
        assert 0 <= part.low <= part.high <= 100
        assert card.coverage(name, 70).value <= card.coverage(name, 50).value


@given(st.lists(PERCENT, min_size=2, max_size=8), st.integers(1, 4))
def test_the_interval_holds_the_mean_when_every_prompt_has_as_many_answers(values: list[float], k: int) -> None:
    card = score(
        [verdict(f"p{number}/{sample}", value) for number, value in enumerate(values) for sample in range(k)]
    )

    assert card.precision.low - 1e-9 <= card.precision.value <= card.precision.high + 1e-9


def test_verdicts_compare_by_value() -> None:
    assert verdict("p/0", 80) == Verdict("p/0", "judge", 0, 80, 80)
