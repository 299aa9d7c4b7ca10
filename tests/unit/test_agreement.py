"""How far a judge can be trusted, in figures."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.agreement import Means, agree, correlate, spread, traded
from mlflow_llamaduo.core.trust import Answer, OneScore, Scores, measure

SIDES = ("the judge", "people")
LINES = (50.0, 70.0)

points = st.one_of(st.sampled_from([0.0, 49.9, 50.0, 70.0, 100.0]), st.floats(0, 100))
means = st.dictionaries(st.sampled_from("abcdefghijkl"), points)


def scores(*values: float) -> Means:
    return {f"p{number}/0": value for number, value in enumerate(values)}


def numbers(value: Any) -> Iterator[float]:
    """Every number in a figure."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


# Two who scored the same responses


def test_error_is_the_mean_distance_and_bias_says_who_is_kinder() -> None:
    found = agree(scores(80, 60, 40), scores(70, 70, 40), LINES)

    assert (found.n, found.bias) == (3, 0)
    assert found.error == pytest.approx(20 / 3)
    assert agree(scores(80, 60), scores(70, 50), LINES).bias == 10


def test_only_responses_that_both_have_scored_count() -> None:
    found = agree({"a": 80, "b": 60, "only the judge": 0}, {"a": 80, "b": 60, "only people": 100}, LINES)

    assert (found.n, found.error) == (2, 0)


def test_kappa_is_the_textbooks() -> None:
    judge = scores(*[80] * 25, *[20] * 25)
    people = scores(*[80] * 20, *[20] * 5, *[80] * 10, *[20] * 15)  # Cohen: 35 of 50 agree, 0.5 by chance
    (found,) = agree(judge, people, [50]).kappas

    assert (found.agreement, found.above) == (70, (25, 30))
    assert found.kappa == pytest.approx(0.4)


def test_a_score_at_the_threshold_is_above_it_as_in_coverage() -> None:
    (found,) = agree(scores(70, 69.9), scores(71, 0), [70]).kappas

    assert (found.above, found.kappa) == ((1, 1), 1)


def test_kappa_is_none_where_both_put_everything_on_one_side() -> None:
    (found,) = agree(scores(80, 90, 100), scores(75, 75, 75), [70]).kappas
    assert (found.kappa, found.agreement, found.why) == (None, 100, "each has all 3 on one side")

    (opposite,) = agree(scores(80, 90), scores(10, 20), [70]).kappas
    assert (opposite.kappa, opposite.agreement) == (None, 0)


def test_kappa_is_zero_where_one_of_them_does_not_tell_apart() -> None:
    (found,) = agree(scores(80, 90, 100), scores(10, 75, 75), [70]).kappas

    assert (found.kappa, found.above) == (0, (3, 2))


def test_nothing_in_common_is_no_figure_and_no_zero() -> None:
    found = agree(scores(80), {}, LINES)

    assert (found.n, found.error, found.bias, found.rank.rho) == (0, None, None, None)
    assert [(kappa.kappa, kappa.agreement) for kappa in found.kappas] == [(None, None)] * 2
    assert found.rank.why
    assert all(kappa.why for kappa in found.kappas)


def test_spearman_is_the_textbooks_ties_included() -> None:
    iq, hours = (106, 100, 86, 101, 99, 103, 97, 113, 112, 110), (7, 27, 2, 50, 28, 29, 20, 12, 6, 17)
    assert correlate(scores(*iq), scores(*hours), sides=SIDES).rho == pytest.approx(-29 / 165)

    tied = correlate(scores(1, 1, 2, 3), scores(1, 2, 2, 4), sides=SIDES)
    assert tied.rho == pytest.approx(5 / 6)  # Pearson's of the mean ranks 1.5 1.5 3 4 and 1 2.5 2.5 4: 3.75 / 4.5


def test_the_interval_is_bonett_and_wrights() -> None:
    found = correlate(scores(*range(10)), scores(1, 0, 3, 2, 5, 4, 7, 6, 9, 8), sides=SIDES)
    assert found.rho is not None
    half = 1.959964 * math.sqrt((1 + found.rho**2 / 2) / 7)

    assert found.low == pytest.approx(math.tanh(math.atanh(found.rho) - half))
    assert found.high == pytest.approx(math.tanh(math.atanh(found.rho) + half))


def test_few_responses_in_perfect_order_are_no_certainty() -> None:
    few = correlate(scores(1, 2, 3, 4), scores(1, 2, 3, 4), sides=SIDES)
    many = correlate(scores(*range(100)), scores(*range(100)), sides=SIDES)

    upside_down = correlate(scores(1, 2, 3, 4), scores(4, 3, 2, 1), sides=SIDES)

    assert (few.rho, few.high) == (1, 1)
    assert (upside_down.rho, upside_down.low) == (-1, -1)
    assert few.low is not None
    assert few.low < 0
    assert many.low is not None
    assert 0.99 < many.low < 1


def test_too_few_and_constant_scores_have_a_reason_and_no_correlation() -> None:
    assert correlate(scores(1, 2, 3), scores(1, 2, 3), sides=SIDES).why == "3 prompts, at least 4 are needed"
    constant = correlate(scores(70, 70, 70, 70), scores(1, 2, 3, 4), sides=SIDES)
    assert (constant.rho, constant.why) == (None, "the judge has the same value for all 4")
    assert correlate(scores(1, 2, 3, 4), scores(5, 5, 5, 5), sides=SIDES).why.startswith("people has the same")


def test_answers_to_one_prompt_do_not_make_the_interval_narrower() -> None:
    one, other = scores(*range(40)), scores(*(x + 7 * (-1) ** x for x in range(40)))
    apart = correlate(one, other, sides=SIDES)
    together = correlate(one, other, sides=SIDES, prompts={key: str(i // 4) for i, key in enumerate(one)})

    assert (apart.n, apart.prompts, together.n, together.prompts) == (40, 40, 40, 10)
    assert apart.rho == together.rho
    assert apart.low is not None
    assert together.low is not None
    assert together.low < apart.low


@given(means, means)
def test_agreement_is_mutual_and_only_the_bias_turns(one: Means, other: Means) -> None:
    there, back = agree(one, other, LINES, sides=("a", "b")), agree(other, one, LINES, sides=("b", "a"))

    assert (there.n, there.error) == (back.n, back.error)
    assert there.bias == (None if back.bias is None else -back.bias)
    assert there.rank.rho == pytest.approx(back.rank.rho)
    assert [kappa.kappa for kappa in there.kappas] == pytest.approx([kappa.kappa for kappa in back.kappas])
    assert [kappa.above for kappa in there.kappas] == [kappa.above[::-1] for kappa in back.kappas]


@given(means, means, st.randoms())
def test_the_order_of_responses_does_not_matter(one: Means, other: Means, random: Any) -> None:
    keys = random.sample(sorted(one), len(one))

    assert agree({key: one[key] for key in keys}, other, LINES) == agree(one, other, LINES)


@given(means, means)
def test_every_figure_is_within_its_bounds_or_none_with_a_reason(one: Means, other: Means) -> None:
    found = agree(one, other, LINES)

    assert all(math.isfinite(number) for number in numbers(asdict(found)))
    assert found.error is None or 0 <= abs(found.bias or 0) <= found.error + 1e-9 <= 100 + 1e-9
    rank = found.rank
    assert (rank.rho is None) == bool(rank.why)
    if rank.rho is not None and rank.low is not None and rank.high is not None:
        assert -1 <= rank.low <= rank.rho <= rank.high <= 1
    for kappa in found.kappas:
        assert (kappa.kappa is None) == bool(kappa.why)
        assert kappa.kappa is None or -1 <= kappa.kappa <= 1
        assert kappa.agreement is None or 0 <= kappa.agreement <= 100


@given(means)
def test_who_agrees_with_himself_agrees_wholly(one: Means) -> None:
    found = agree(one, one, LINES)

    assert found.error in (0, None)
    assert found.rank.rho in (None, pytest.approx(1))
    assert all(kappa.kappa in (None, 1) for kappa in found.kappas)


# One judge and himself


def test_the_spread_is_pooled_within_responses() -> None:
    found = spread([(60, 80), (40, 40, 40), (10,), ()], LINES)

    assert found.n == 2  # one judging has no spread
    assert found.points == pytest.approx(math.sqrt(200 / 3))
    assert [(c.threshold, c.share) for c in found.crossings] == [(50, 0), (70, 50)]


def test_a_difference_between_responses_is_no_spread() -> None:
    assert spread([(0, 0), (100, 100)], LINES).points == 0


def test_judgings_that_end_at_the_threshold_lie_on_both_sides_of_it() -> None:
    assert spread([(69, 70)], [70]).crossings[0].share == 100
    assert spread([(70, 71)], [70]).crossings[0].share == 0


def test_without_repeats_there_is_no_spread() -> None:
    found = spread([(60,), ()], LINES)

    assert (found.points, found.crossings, found.why) == (None, (), "no response has two judgings")


@given(st.lists(points, min_size=2))
def test_the_spread_of_one_response_is_its_standard_deviation(own: list[float]) -> None:
    assert spread([own], LINES).points == pytest.approx(stdev(own), abs=1e-6)


@given(st.lists(st.lists(points)), st.randoms())
def test_neither_order_matters_to_the_spread(judgings: list[list[float]], random: Any) -> None:
    shuffled = [random.sample(own, len(own)) for own in random.sample(judgings, len(judgings))]
    one, other = spread(judgings, LINES), spread(shuffled, LINES)

    assert one.crossings == other.crossings
    assert one.points == pytest.approx(other.points)
    assert one.points is None or 0 <= one.points <= 100


def test_a_swap_is_the_mean_change_and_who_crosses_a_threshold() -> None:
    found = traded("judge", [(80, 60), (40, 40), (90, 80), (None, 10), (10, None)], spread([(60, 70)], LINES), LINES)

    assert (found.n, found.unjudged, found.points) == (3, 2, 10)
    assert [(c.threshold, round(c.share)) for c in found.crossings] == [(50, 0), (70, 33)]
    assert found.by_chance == pytest.approx(2 * math.sqrt(50) / math.sqrt(math.pi))


def test_a_swap_that_nobody_scored_is_none_with_a_reason() -> None:
    failed = traded("judge", [(None, 10)], spread([], LINES), LINES)
    assert (failed.points, failed.unjudged, failed.why) == (None, 1, "no judging gave a score")
    assert traded("judge", [], spread([], LINES), LINES).why == "no response differs from its reference"


@given(st.lists(st.tuples(points, points), min_size=1))
def test_a_swap_is_mutual_and_bounded(pairs: list[tuple[float, float]]) -> None:
    there = traded("judge", pairs, spread([], LINES), LINES)
    back = traded("judge", [(other, one) for one, other in pairs], spread([], LINES), LINES)

    assert there == back
    assert there.points is not None
    assert 0 <= there.points <= 100
    assert all(0 <= crossing.share <= 100 for crossing in there.crossings)


# The whole report


def answers(count: int, **more: Any) -> dict[str, Answer]:
    return {f"p{i}/0": Answer(f"p{i}", 10 * (i + 1), 20, **more) for i in range(count)}


def of(report_scores: tuple[OneScore, ...], quantity: str) -> OneScore:
    (found,) = [score for score in report_scores if score.quantity == quantity]
    return found


def test_a_response_counts_with_the_mean_of_its_judgings_and_the_unjudged_are_left_out() -> None:
    judged = {"p0/0": Scores((80,), (80, 60), 1), "p1/0": Scores((), (), 3), "p2/0": Scores((50,), (50,), 0)}
    report = measure({"one": judged}, {"precision": scores(60, 100, 50)}, answers(4), LINES)
    (judge,) = report.judges

    assert (report.responses, judge.judged, judge.judgings, judge.unjudged) == (4, 2, 7, 4)
    precision = of(judge.scores, "precision")
    assert (precision.people.n, precision.people.error) == (2, 5)  # a zero for p1 would make it 36.7
    assert of(judge.scores, "similarity").people.n == 0


def test_length_counts_in_characters_and_beside_the_reference() -> None:
    known = answers(8)
    judged = {key: Scores((50.0,), (100.0 - answer.response,)) for key, answer in known.items()}
    precision = of(measure({"one": judged}, {}, known, LINES).judges[0].scores, "precision")
    assert (precision.length.rho, precision.relative_length.rho) == (-1, -1)

    other = {key: Answer(answer.prompt, answer.response, answer.response**2) for key, answer in known.items()}
    precision = of(measure({"one": judged}, {}, other, LINES).judges[0].scores, "precision")
    assert (precision.length.rho, precision.relative_length.rho) == (-1, 1)


def test_an_answer_without_a_reference_has_no_relative_length() -> None:
    known = {key: Answer(a.prompt, a.response, 0 if key == "p0/0" else 20) for key, a in answers(6).items()}
    judged = {key: Scores((float(a.response),), (float(a.response),)) for key, a in known.items()}
    (similarity, _) = measure({"one": judged}, {}, known, LINES).judges[0].scores

    assert (similarity.length.n, similarity.relative_length.n) == (6, 5)


def test_every_two_judges_are_compared_on_what_both_judged() -> None:
    def judged(*values: float) -> dict[str, Scores]:
        return {f"p{i}/0": Scores((value,), (value / 2,)) for i, value in enumerate(values)}

    judges = {"a": judged(10, 20, 30), "b": judged(20, 30), "c": judged(10)}
    between = measure(judges, {}, answers(3), LINES).between

    assert [(b.one, b.other, b.quantity, b.agreement.n, b.agreement.bias) for b in between] == [
        ("a", "b", "similarity", 2, -10),
        ("a", "b", "precision", 2, -5),
        ("a", "c", "similarity", 1, 0),
        ("a", "c", "precision", 1, 0),
        ("b", "c", "similarity", 1, 10),
        ("b", "c", "precision", 1, 5),
    ]


def test_two_answers_to_one_prompt_are_one_prompt_wherever_they_are_compared() -> None:
    known = {f"p{i // 2}/{i % 2}": Answer(f"p{i // 2}", i, 20) for i in range(12)}
    judged = {key: Scores((float(a.response),), (float(a.response),)) for key, a in known.items()}
    labels = {key: float(answer.response) for key, answer in known.items()}
    report = measure({"a": judged, "b": judged}, {"similarity": labels}, known, LINES)
    (score, _) = report.judges[0].scores
    ranks = [score.people.rank, score.length, score.relative_length, report.between[0].agreement.rank]

    assert [(rank.n, rank.prompts) for rank in ranks] == [(12, 6)] * 4


@given(st.dictionaries(st.sampled_from([f"p{i}/0" for i in range(6)]), st.lists(points, max_size=4)), means)
def test_whatever_was_scored_a_report_holds_no_nan(judged: dict[str, list[float]], labels: Means) -> None:
    own = {key: Scores(tuple(values), tuple(values), unjudged=1) for key, values in judged.items()}
    report = measure({"a": own, "b": {}}, {"similarity": labels}, answers(6), LINES)

    assert all(math.isfinite(number) for number in numbers(asdict(report)))
    assert report.judges[0].judgings == sum(len(values) + 1 for values in judged.values())


def test_the_judge_beside_people_is_the_same_as_two_lists_of_means() -> None:
    own = {f"p{i}/0": Scores((float(i), float(3 * i)), (50.0,)) for i in range(6)}
    labels = scores(5, 3, 9, 1, 7, 2)
    similarity = of(measure({"one": own}, {"similarity": labels}, answers(6), LINES).judges[0].scores, "similarity")

    assert similarity.people == agree({key: fmean(s.similarity) for key, s in own.items()}, labels, LINES)
