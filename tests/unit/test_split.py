import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Pair, PairSet
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.coverage import split
from mlflow_llamaduo.coverage.split import Sides, prompt_digest
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


# Groups


PASSAGE = " ".join(f"passage{number}" for number in range(40))


def test_questions_on_one_passage_stay_on_one_side() -> None:
    rows = list(pairs(40))
    for number in range(10):
        text = f"{PASSAGE} {number} " + " ".join(f"s{number}x{w}" for w in range(40))
        rows += [pair(f"{text}\n\nQuestion {question}{number}?", f"a{question}") for question in range(3)]
    found = split(PairSet(tuple(rows)), test_rows=12, dev_rows=6)
    sides = [{passage(p) for p in side} - {None} for side in parts(found)]

    assert not sides[0] & sides[2]
    assert not sides[0] & sides[1]
    assert not sides[1] & sides[2]
    assert (len(found.test), len(found.dev)) == (12, 6)


def passage(p: Pair) -> str | None:
    return next((word.split("x")[0] for word in p.instruction.split() if word.startswith("s") and "x" in word), None)


def test_a_near_copy_is_on_the_side_of_its_original() -> None:
    rows = [pair(" ".join(f"w{n}x{word}" for word in range(30)), "a") for n in range(40)]
    rows += [pair(p.instruction.replace("x7 ", "x7 and "), "another answer") for p in rows[:20]]
    found = split(PairSet(tuple(rows)), test_rows=12, dev_rows=6)
    sides = [{p.instruction.split("x")[0] for p in side} for side in parts(found)]

    assert not sides[0] & sides[2]
    assert not sides[0] & sides[1]
    assert not sides[1] & sides[2]


# Strata


def test_test_and_dev_have_their_share_of_every_category_and_length() -> None:
    short = [pair(f"short{n} ask{n}", "a", category="short") for n in range(60)]
    mixed = [pair(" ".join(f"m{n}w{w}" for w in range(4 + n)), "a", category="mixed") for n in range(30)]
    found = split(PairSet((*short, *mixed)), test_rows=18, dev_rows=9)

    for side, of_mixed in ((found.test, 6), (found.dev, 3)):
        mixed_lengths = [len(p.instruction.split()) - 4 for p in side if p.category == "mixed"]
        assert len(mixed_lengths) == of_mixed
        assert {length // 10 for length in mixed_lengths} == {0, 1, 2}


# What was decided before


@given(st.sets(st.integers(0, 59)), st.sets(st.integers(0, 59), max_size=40))
def test_a_test_row_never_comes_into_train_whatever_is_added_or_removed(before: set[int], after: set[int]) -> None:
    rows = pairs(60).pairs
    keep = sorted(set(range(12)) | before)
    sides = Sides()
    for chosen in (keep, sorted(set(range(12)) | before | after), sorted(set(range(12)) | after)):
        found = split(PairSet(tuple(rows[n] for n in chosen)), test_rows=4, dev_rows=3, sides=sides)
        assert not sides.test & {prompt_digest(p) for p in (*found.train, *found.dev)}
        assert len(found.test) == 4
        sides = sides.after(found)


def test_the_test_rows_of_before_stay_the_test_rows() -> None:
    first = split(pairs(30), test_rows=6, dev_rows=3)
    again = split(pairs(90), test_rows=6, dev_rows=3, sides=Sides().after(first))

    assert set(again.test) == set(first.test)
    assert set(again.dev) == set(first.dev)
    assert len(again.train) == 81


def test_a_new_near_copy_of_a_test_row_is_left_out() -> None:
    rows = [pair(" ".join(f"w{n}x{word}" for word in range(30)), "a") for n in range(30)]
    first = split(PairSet(tuple(rows)), test_rows=6, dev_rows=3)
    copy = pair(first.test.pairs[2].instruction + " more", "a")
    again = split(PairSet((*rows, copy)), test_rows=6, dev_rows=3, sides=Sides().after(first))

    assert set(again.left_out) == {copy}
    assert set(again.test) == set(first.test)


def test_fewer_test_rows_than_before_leave_the_others_out() -> None:
    first = split(pairs(30), test_rows=6, dev_rows=3)
    again = split(pairs(30), test_rows=4, dev_rows=3, sides=Sides().after(first))

    assert set(again.test) < set(first.test)
    assert set(again.left_out) == set(first.test) - set(again.test)


def test_more_test_rows_than_before_are_taken_from_the_others() -> None:
    first = split(pairs(30), test_rows=4, dev_rows=3)
    again = split(pairs(30), test_rows=6, dev_rows=3, sides=Sides().after(first))

    assert set(first.test) < set(again.test)
    assert set(again.dev) == set(first.dev)
