import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.rounds import Limits, Split, State, StopReason, stop_reason
from tests.unit.builders import adapter, card, pairs, round_

SPLIT = Split(pairs(3, "train"), pairs(2, "dev"), pairs(2, "test"))


def after(means: list[float], *, passed: bool = False) -> State:
    """The state after one round for each mean precision; the last one passed the gate or did not."""
    state = State.begin(SPLIT)
    for number, mean in enumerate(means):
        state = state.after(round_(number, mean, passed=passed and number == len(means) - 1), state.train, adapter())
    return state


@pytest.mark.parametrize(
    ("means", "passed", "stop"),
    [
        ([], False, None),
        ([50], False, None),
        ([50], True, "passed"),
        ([50, 60, 70, 80], False, None),
        ([50, 60, 70, 80, 90], False, "rounds"),
        ([50, 60, 70, 80, 90], True, "passed"),
        ([50, 50], False, None),  # too early to call it a plateau
        ([50, 50, 50], False, "plateau"),
        ([50, 50.5, 50.9], False, "plateau"),
        ([50, 50, 51], False, None),  # a rise of just the points is a rise
        ([60, 40, 50], False, "plateau"),  # the best counts: coming back is not rising
        ([40, 60, 50], False, None),
        ([40, 60, 50, 60.5], False, "plateau"),
        ([50, 50, 50], True, "passed"),
        ([50, 50, 50, 50, 50], False, "rounds"),
        ([50, 50, 50, 50, 50], True, "passed"),
    ],
)
def test_the_loop_stops_for_the_first_reason_of_passed_rounds_plateau(
    means: list[float], passed: bool, stop: StopReason | None
) -> None:
    assert stop_reason(after(means, passed=passed), Limits(rounds=5, plateau_rounds=2, plateau_points=1)) == stop


def test_a_plateau_of_no_rounds_is_never_seen() -> None:
    assert stop_reason(after([50, 50, 50, 50]), Limits(rounds=9, plateau_rounds=0, plateau_points=1)) is None


@given(st.lists(st.floats(0, 100), max_size=6), st.integers(1, 6), st.integers(0, 4), st.floats(0, 100))
def test_the_loop_goes_on_only_below_the_round_limit(
    means: list[float], rounds: int, plateau_rounds: int, points: float
) -> None:
    stop = stop_reason(after(means), Limits(rounds, plateau_rounds, points))

    assert (stop == "rounds") == (len(means) >= rounds)
    assert stop in (None, "rounds", "plateau")


def test_a_state_is_a_value_and_what_follows_it_is_a_new_one() -> None:
    begun = State.begin(SPLIT)
    grown = SPLIT.train.with_(pairs(1, "new"))
    later = begun.with_baseline("base", card(40)).after(round_(0), grown, adapter())

    assert (begun.number, begun.baselines, begun.train) == (0, {}, SPLIT.train)
    assert (later.number, later.train) == (1, grown)
    assert (later.dev, later.test) == (SPLIT.dev, SPLIT.test)
    assert later.baselines == {"base": card(40)}
