from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.gate import Decision, RuleResult
from mlflow_llamaduo.core.ledger import Dollars, Planned
from mlflow_llamaduo.core.ledger import Entry as Paid
from mlflow_llamaduo.core.pairwise import Duels
from mlflow_llamaduo.core.records import (
    Adapter,
    EpochLoss,
    Grown,
    Judgement,
    Message,
    Pair,
    PairSet,
    Rejected,
    Response,
    Version,
)
from mlflow_llamaduo.core.rounds import Round, Split, State, StopReason
from mlflow_llamaduo.core.rules import GateRule
from mlflow_llamaduo.core.scoring import Scorecard, Scored
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.journal import Entry, Journal
from tests.unit.builders import adapter, pair, pairs, response, round_, unjudged, verdict


def with_table(card: Scorecard) -> Scorecard:
    """What has been computed of a scorecard must not get into its file."""
    assert card.table is not None
    return card


FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**40)
PAIR = st.builds(
    Pair, st.lists(st.builds(Message, st.text(), st.text()), max_size=3).map(tuple), st.text(), st.text(), st.text()
)
PAIRS = st.lists(PAIR, max_size=3).map(lambda found: PairSet(tuple(found)))
SCORED = st.builds(
    Scored, st.text(), FINITE, FINITE, COUNT, st.lists(st.text(), max_size=2).map(tuple), st.booleans()
)
CARD = st.builds(Scorecard, st.text(), COUNT, COUNT, COUNT, COUNT, st.lists(SCORED, max_size=3).map(tuple)).map(
    with_table
)
RULE = st.builds(GateRule, st.text(), FINITE, st.sampled_from(["mean", "lower_bound"]))
BOUND = st.none() | FINITE
RESULT = st.builds(RuleResult, RULE, BOUND, BOUND, BOUND, COUNT, st.booleans(), st.text())
POINTS = st.lists(st.tuples(st.text(), FINITE), max_size=2).map(tuple)
DUELS = st.builds(Duels, st.text(), st.text(), COUNT, COUNT, COUNT, COUNT, COUNT, BOUND, BOUND, POINTS)
DECISION = st.builds(Decision, st.lists(RESULT, max_size=3).map(tuple))
VERSION = st.builds(Version, st.text(), COUNT, st.text())
ROUND = st.builds(
    *(Round, COUNT, VERSION, CARD, DECISION, COUNT, COUNT, COUNT, FINITE),
    others=st.lists(CARD, max_size=1).map(tuple),
    duels=st.lists(DUELS, max_size=1).map(tuple),
    ledger=st.lists(st.builds(Paid, st.text(), st.text(), FINITE, FINITE, COUNT, COUNT, COUNT), max_size=2).map(
        tuple
    ),
    calls_saved=COUNT,
    reference=st.dictionaries(st.text(), FINITE, max_size=2),
)
STATE = st.builds(
    State, PAIRS, PAIRS, PAIRS, st.dictionaries(st.text(), CARD, max_size=2), st.lists(ROUND, max_size=2).map(tuple)
)


def never(_: Path) -> Any:
    raise AssertionError("this was finished before")


@given(STATE, st.sampled_from(get_args(StopReason)), st.lists(st.text(), max_size=3).map(tuple))
def test_any_state_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, state: State, stop: StopReason, ids: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    planned = (Planned("round 0: judge", "gpt", 8, 900, 70, Dollars(0.1, 0.2, 0.3), None),)
    Journal(folder, "f").update(state=state, stop=stop, round_run_ids=ids, planned=planned)

    assert Journal(folder, "f").entry() == Entry(state, None, ids, stop, planned)


def test_a_journal_begins_empty(tmp_path: Path) -> None:
    assert Journal(tmp_path, "f").entry() == Entry()


def test_an_update_leaves_the_other_fields_alone(tmp_path: Path) -> None:
    state = State.begin(Split(pairs(2), pairs(1, "dev"), pairs(1, "test"))).after(round_(), pairs(3), adapter())
    journal = Journal(tmp_path, "f")
    journal.update(run_id="run")
    journal.update(state=state)
    journal.update(stop="passed")

    assert journal.entry() == Entry(state, "run", (), "passed")


def test_alignments_do_not_see_each_other_and_forgetting_one_keeps_the_other(tmp_path: Path) -> None:
    one, other = Journal(tmp_path, "one"), Journal(tmp_path, "other")
    one.update(run_id="run 1")
    other.update(run_id="run 2")
    one.forget()
    one.forget()

    assert one.entry() == Entry()
    assert other.entry().run_id == "run 2"


VALUES: list[tuple[Any, Any]] = [
    (Adapter, adapter(losses=(EpochLoss(1.0, None, 1.5), EpochLoss(2.0, 1.25, 1.5)))),
    (tuple[Response, ...], (response("Arn"), response("\U0001f642\u2028\x00", sample=1))),
    (tuple[Judgement, ...], (verdict("p/0", 85.5), unjudged("p/1"), verdict("p/2", 0, reason="both"))),
    (Grown, Grown(tuple(pairs(2)), (Rejected(None, "malformed", "text"), Rejected(pair(), "leak")))),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=["adapter", "responses", "judgements", "grown"])
def test_a_finished_stage_is_read_back_and_not_made_again(tmp_path: Path, kind: Any, value: Any) -> None:
    assert Journal(tmp_path, "f").once("stage", ["inputs", 1], kind, lambda _: value) == value
    assert Journal(tmp_path, "other").once("stage", ["inputs", 1], kind, never) == value


def test_a_training_that_diverged_is_read_back_as_well(tmp_path: Path) -> None:
    diverged = adapter(train_loss=float("nan"), eval_loss=float("inf"))
    Journal(tmp_path, "f").once("finetune", [], Adapter, lambda _: diverged)

    assert repr(Journal(tmp_path, "f").once("finetune", [], Adapter, never)) == repr(diverged)


def test_other_inputs_or_another_stage_are_made_anew(tmp_path: Path) -> None:
    journal, made = Journal(tmp_path, "f"), list[Path]()

    def make(place: Path) -> int:
        made.append(place)
        return len(made)

    found = [
        journal.once(stage, inputs, int, make) for stage, inputs in (("a", [1]), ("a", [2]), ("b", [1]), ("a", [1]))
    ]
    assert found == [1, 2, 3, 1]
    assert len(set(made)) == 3


def test_a_stage_that_failed_is_not_kept(tmp_path: Path) -> None:
    def fail(_: Path) -> int:
        raise RuntimeError("no memory")

    journal = Journal(tmp_path, "f")
    with pytest.raises(RuntimeError, match="no memory"):
        journal.once("stage", [], int, fail)
    assert journal.once("stage", [], int, lambda _: 7) == 7


def test_files_beside_a_value_have_a_place_that_is_there_again(tmp_path: Path) -> None:
    places: list[Path] = []

    def make(place: Path) -> str:
        place.mkdir()
        (place / "weights").touch()
        places.append(place)
        return str(place)

    journal = Journal(tmp_path, "f")
    first = journal.once("finetune", [], str, make)

    assert journal.once("finetune", [], str, never) == first
    assert (places[0] / "weights").is_file()


def test_seconds_are_those_of_the_life_that_did_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 107.0])
    monkeypatch.setattr("mlflow_llamaduo.journal.time.monotonic", lambda: next(clock))
    make: Callable[[Path], int] = lambda _: 1  # noqa: E731
    first, second = Journal(tmp_path, "f"), Journal(tmp_path, "f")
    first.once("stage", [], int, make)
    second.once("stage", [], int, never)

    assert first.take_seconds() == second.take_seconds() == 7
    assert second.take_seconds() == 0


def test_a_second_process_on_the_same_alignment_is_told_and_another_alignment_is_not(tmp_path: Path) -> None:
    with Journal(tmp_path, "one").locked():
        with pytest.raises(StageError, match="another process"), Journal(tmp_path, "one").locked():
            pass
        with Journal(tmp_path, "other").locked():
            pass
    with Journal(tmp_path, "one").locked():
        pass


def test_an_error_within_the_lock_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="own"), Journal(tmp_path, "one").locked():
        raise TimeoutError("own")
