import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Pair, PairSet
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.coverage import split
from mlflow_llamaduo.errors import DataError
from tests.unit.builders import pair, pairs


def parts(of: Split) -> tuple[PairSet, PairSet, PairSet]:
    return of.train, of.dev, of.test


def test_the_parts_have_the_sizes_asked_for_and_share_no_pair() -> None:
    everything = pairs(30)
    train, dev, test = parts(split(everything, test_rows=6, dev_rows=4))

    assert (len(train), len(dev), len(test)) == (20, 4, 6)
    assert {*train, *dev, *test} == set(everything)


TWO_ANSWERS_EACH = [pair(p.instruction, answer) for p in pairs(8) for answer in ("yes", "no")]


@given(st.permutations(TWO_ANSWERS_EACH))
def test_the_order_of_the_rows_does_not_matter(rows: list[Pair]) -> None:
    once = split(PairSet(tuple(TWO_ANSWERS_EACH)), test_rows=3, dev_rows=3)

    assert split(PairSet(tuple(rows)), test_rows=3, dev_rows=3) == once


@given(st.sets(st.integers(0, 19)))
def test_a_copy_of_a_test_prompt_is_in_no_other_part(copied: set[int]) -> None:
    rows = list(pairs(20))
    for number in copied:
        rows.append(pair(f"Please answer this: {rows[number].instruction.upper()}", f"copy of {number}"))
    train, dev, test = parts(split(PairSet(tuple(rows)), test_rows=6, dev_rows=3))
    held_out = {frozenset(group(p)) for p in test}

    assert len(test) == 6
    assert not [p for p in (*train, *dev) if frozenset(group(p)) in held_out]


def group(p: Pair) -> set[str]:
    """The words that only a pair and its copies have."""
    return {word for word in p.instruction.lower().split() if word.startswith("p")} - {"please"}


def test_pairs_of_one_prompt_never_fall_on_both_sides() -> None:
    rows = [pair(p.instruction, answer) for p in pairs(12) for answer in ("yes", "no")]
    train, dev, test = parts(split(PairSet(tuple(rows)), test_rows=5, dev_rows=2))

    assert not {p.instruction for p in test} & {p.instruction for p in (*train, *dev)}


def test_too_few_pairs_are_told_with_the_number_needed() -> None:
    with pytest.raises(DataError, match=r"8 pairs are too few.* need 9"):
        split(pairs(8), test_rows=6, dev_rows=2)

    assert len(split(pairs(9), test_rows=6, dev_rows=2).train) == 1


def test_pairs_that_all_share_the_test_prompts_text_leave_nothing_to_train_on() -> None:
    # as many as are no template yet
    shared = " ".join(f"word{number}" for number in range(40))
    rows = PairSet(tuple(pair(f"{shared} {number}") for number in range(7)))

    with pytest.raises(DataError, match="up to 7 of them share their text"):
        split(rows, test_rows=2, dev_rows=2)
