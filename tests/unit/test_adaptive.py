"""Asking a judge stops when the decision can no longer change, and not before."""

import random

import pytest

from mlflow_llamaduo.core.adaptive import settled
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.pairwise import Duels
from mlflow_llamaduo.core.records import Judgement, Response
from mlflow_llamaduo.core.rules import GateRule
from tests.unit.builders import response, unjudged, verdict

GATE = [GateRule("precision_mean", 70), GateRule("judged_share", 95)]
RESPONSES = [response(pair_id=f"p{n}") for n in range(48)]


def judgings(mean: float, repeats: int, noise: float = 5.0, spread: float = 3.0) -> list[Judgement]:
    draw = random.Random(1)  # noqa: S311
    worth = {r.id: draw.gauss(mean, spread) for r in RESPONSES}
    return [
        verdict(own, min(100.0, max(0.0, worth[own] + draw.gauss(0, noise))), repeat=repeat)
        for repeat in range(repeats)
        for own in worth
    ]


def stops(judgements: list[Judgement], repeats: int = 10, responses: list[Response] = RESPONSES) -> bool:
    return settled(judgements, responses, repeats=repeats, gate=GATE, against=Against())


@pytest.mark.parametrize("mean", [20, 50, 85, 95])
def test_far_from_the_line_two_judgings_are_enough(mean: float) -> None:
    assert stops(judgings(mean, 2))


def test_one_judging_is_never_enough() -> None:
    assert not stops(judgings(95, 1))


def test_near_the_line_asking_goes_on() -> None:
    assert not stops(judgings(70, 2))


def test_the_noisier_the_judge_the_longer_it_is_asked() -> None:
    assert stops(judgings(76, 2, noise=1))
    assert not stops(judgings(76, 2, noise=60))


def test_after_all_judgings_nothing_is_left_to_ask() -> None:
    assert stops(judgings(70, 3), repeats=3)


def test_without_a_verdict_nothing_is_settled() -> None:
    assert not stops([unjudged(r.id, repeat=n) for r in RESPONSES for n in range(2)])


def test_the_same_judgings_are_always_settled_alike() -> None:
    given = judgings(71, 3)

    assert len({stops(given) for _ in range(3)}) == 1


def failing(judgements: list[Judgement], share: float) -> list[Judgement]:
    draw = random.Random(2)  # noqa: S311
    return [unjudged(j.response_id, repeat=j.repeat) if draw.random() < share else j for j in judgements]


def test_a_share_of_failures_near_the_limit_settles_nothing_while_the_scores_pass() -> None:
    assert not stops(failing(judgings(90, 3), 0.04))
    assert stops(failing(judgings(90, 3), 0.4))


def test_where_the_scores_fail_the_share_of_failures_is_no_matter() -> None:
    assert stops(failing(judgings(20, 4), 0.04))


def test_a_response_without_a_verdict_may_still_get_any() -> None:
    """Its score can be 0 as well as 100: near enough to the line that decides."""
    given = judgings(71.5, 4, noise=0.5, spread=0.1)
    assert stops(given)
    missing = {r.id for r in RESPONSES[:4]}
    without = [unjudged(j.response_id, repeat=j.repeat) if j.response_id in missing else j for j in given]

    assert not settled(without, RESPONSES, repeats=10, gate=GATE[:1], against=Against())


def test_a_gate_whose_pairs_have_failed_already_asks_for_nothing_more() -> None:
    lost = Duels("judge", "reference", 0, 0, 48, 0, 0, 0.0, 50.0, tuple((f"p{n}", 0.0) for n in range(48)))
    gate = [*GATE, GateRule("win_rate_over_reference", 50)]

    assert settled(judgings(70, 2), RESPONSES, repeats=10, gate=gate, against=Against(duels={"reference": lost}))


def test_a_judge_that_doubts_a_few_answers_is_asked_on_about_them() -> None:
    """Pooled over all its noise is small; the one answer near the threshold of a coverage is what it doubts."""
    sure = [verdict(r.id, 90.0, repeat=n) for r in RESPONSES[1:] for n in range(2)]
    doubted = [verdict(RESPONSES[0].id, 40.0, repeat=0), verdict(RESPONSES[0].id, 80.0, repeat=1)]
    gate = [GateRule("precision_coverage_55", 99)]

    assert not settled([*sure, *doubted], RESPONSES, repeats=10, gate=gate, against=Against())
