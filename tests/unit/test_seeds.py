"""Which train pairs become examples."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Pair, PairSet
from mlflow_llamaduo.synthesis import failures
from mlflow_llamaduo.synthesis.seeds import draw
from tests.unit.builders import pair, pairs, response

NOBODY = PairSet(())
LONG = " and then some more of it" * 8


def both(name: str, count: int) -> list[Pair]:
    """Pairs with short answers, and as many with long ones."""
    prompts = [p.instruction for p in pairs(2 * count, name)]
    return [pair(text, "Arn" if n < count else f"Arn{LONG}") for n, text in enumerate(prompts)]


def drawn_long(failed_short: float, failed_long: float) -> float:
    """The share of examples with long answers among the first half, over many rounds."""
    seeds, dev = both("seed", 20), PairSet(tuple(both("dev", 6)))
    failed = {p.id: failed_long if LONG in p.response else failed_short for p in dev}
    counts: Counter[bool] = Counter()
    for batch in range(30):
        counts.update(LONG in p.response for p in draw(seeds, 20, batch=batch, dev=dev, failed=failed))
    return counts[True] / counts.total()


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 5))
def test_no_seed_is_used_again_before_all_have_been_used(people: int, count: int, batch: int) -> None:
    seeds = pairs(people).pairs
    used = Counter(draw(seeds, count, batch=batch, dev=NOBODY, failed={}))

    assert used.total() == count
    assert max(used.values(), default=0) - min((used[p] for p in seeds), default=0) <= 1


def test_the_order_is_the_rounds_own_and_the_same_every_time() -> None:
    seeds = list(pairs(30).pairs)
    first = draw(seeds, 30, batch=1, dev=NOBODY, failed={})

    assert draw(seeds[::-1], 30, batch=1, dev=NOBODY, failed={}) == first
    assert draw(seeds, 30, batch=2, dev=NOBODY, failed={}) != first


def test_kinds_that_dev_failed_are_shown_more_often() -> None:
    assert drawn_long(0.0, 1.0) > 0.58
    assert drawn_long(1.0, 0.0) < 0.42
    assert drawn_long(0.5, 0.5) == pytest.approx(0.5, abs=0.06)


def test_a_failure_is_how_far_the_answers_are_from_the_reference() -> None:
    given_ = [response("Arn", pair_id="right"), response("Bel", pair_id="wrong")]
    half = [response("Arn", pair_id="half"), response("Bel", pair_id="half", sample=1)]

    assert failures([*given_, *half]) == {"right": 0.0, "wrong": 1.0, "half": 0.5}
    assert failures([]) == {}
