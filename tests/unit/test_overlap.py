import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.overlap import LeakIndex, grams, near_pairs, words
from tests.unit.builders import pair

LETTERS = "abcdefghijklmnopqrstuvwxyz0"
TEST = pair(" ".join(f"test{letter}" for letter in LETTERS))  # 27 words: 20 runs of 8
OTHER = " ".join(f"own{letter}" for letter in LETTERS)

PASSAGE = "The mill at Arn burnt down in 1902, and the town council built a school on the ground in its place. " * 4


def quoting(count: int) -> str:
    """27 words, the first `count` of them the test prompt's."""
    return " ".join([*TEST.instruction.split()[:count], *OTHER.split()[count:]])


@pytest.mark.parametrize(("count", "leaks"), [(0, False), (12, False), (13, True), (20, True), (27, True)])
def test_a_row_leaks_from_three_tenths_of_the_eight_word_runs_on(count: int, leaks: bool) -> None:
    found = LeakIndex([TEST]).leak(pair(quoting(count)))

    assert found == (TEST.id if leaks else None)


def test_a_short_row_that_lies_whole_within_a_test_prompt_leaks() -> None:
    assert LeakIndex([TEST]).leak(pair(" ".join(TEST.instruction.split()[5:14]))) == TEST.id


def test_a_test_prompt_quoted_whole_in_a_long_row_leaks_whatever_its_case_and_punctuation() -> None:
    quoted = ", ".join(TEST.instruction.upper().split())

    assert LeakIndex([TEST]).leak(pair(f"{OTHER} {OTHER}\n\nNow: {quoted}!")) == TEST.id


def test_a_test_prompt_of_few_words_quoted_whole_leaks() -> None:
    test = pair("What is the capital of France?")

    assert LeakIndex([test]).leak(pair("Answer in one word: what is the capital of France? Think first.")) == test.id
    assert LeakIndex([test]).leak(pair("What is the capital of Peru, and who founded it?")) is None


def test_prompts_without_a_word_give_nothing_away() -> None:
    assert LeakIndex([pair("???")]).leak(pair("!!!")) is None


def test_without_test_pairs_nothing_leaks() -> None:
    assert LeakIndex([]).leak(TEST) is None


def test_a_short_prompt_leaks_only_by_the_same_words() -> None:
    index = LeakIndex([pair("Who wrote Faust?")])

    assert index.leak(pair("who wrote faust"))
    assert index.leak(pair("Who wrote Emma?")) is None


@given(st.text(), st.integers(1, 8))
def test_a_text_has_one_run_for_every_place_it_can_begin(text: str, size: int) -> None:
    found = words(text)
    runs = grams(text, size)

    assert 1 <= len(runs) <= max(1, len(found) - size + 1)
    assert all(len(run) == min(size, len(found)) for run in runs)


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        (("Which town?", "Arn"), ("which  TOWN", "arn."), True),
        (("Which town?", "Arn"), ("Which town?", "Bel"), False),
        (("What is bread made of?", "Flour"), ("Who painted the ceiling?", "Flour"), False),
        ((f"{PASSAGE}\n\nWhat burnt down?", "The mill"), (f"{PASSAGE}\n\nWhat burnt down?", "the mill"), True),
        ((f"{PASSAGE}\n\nWhat burnt down?", "Yes"), (f"{PASSAGE}\n\nIs there a school?", "Yes"), False),
        ((f"{PASSAGE}\n\nWhat burnt down?", "Mill"), (f"What burnt down?\n\nText: {PASSAGE}", "Mill"), True),
        ((f"{PASSAGE}\n\nWhat burnt down?", "Mill"), (PASSAGE, "Mill"), False),
    ],
)
def test_near_copies_say_the_same_in_every_line_and_in_the_response(
    one: tuple[str, str], other: tuple[str, str], near: bool
) -> None:
    assert near_pairs(pair(*one), pair(*other)) is near
    assert near_pairs(pair(*other), pair(*one)) is near


@pytest.mark.parametrize(("changed", "near"), [(1, True), (2, False)])
def test_seven_tenths_of_the_words_make_a_near_copy(changed: int, near: bool) -> None:
    original = [f"w{number}" for number in range(10)]
    copy = [f"new{number}" if number < changed else word for number, word in enumerate(original)]

    # 9 of 11 different words are shared, or 8 of 12
    assert near_pairs(pair(" ".join(original)), pair(" ".join(copy))) is near


@given(st.text(), st.text())
def test_a_pair_is_a_near_copy_of_itself(instruction: str, response: str) -> None:
    assert near_pairs(pair(instruction, response), pair(instruction, response))
