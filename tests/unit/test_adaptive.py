"""Asking a judge stops when the decision can no longer change, and not before."""

import random

import pytest

from mlflow_llamaduo.core.adaptive import settled
from mlflow_llamaduo.core.gate import Against, GateRule
from mlflow_llamaduo.core.records import Judgement, Response
from tests.unit.builders import response, unjudged, verdict

GATE = [GateRule("precision_mean", 70), GateRule("judged_share", 95)]
RESPONSES = [response(pair_id=f"p{n}") for n in range(12)]


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


def test_rules_about_judges_share_and_pairs_settle_nothing() -> None:
    """A gate of such rules alone has no figure that another judging could move."""
    gate = [GateRule("judged_share", 95)]

    assert settled(judgings(50, 2), RESPONSES, repeats=10, gate=gate, against=Against())
