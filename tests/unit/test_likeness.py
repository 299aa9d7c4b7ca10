"""When two pairs say the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.likeness import near_pairs, rouge_l
from tests.unit.builders import pair

PASSAGE = (
    "The mill at Arn burnt down in 1902, and the town council built a school on the ground in its place. "
    "Its first master was Peder Holm. He taught forty children in one room. The roof leaked for years."
)

LONG = "It burnt down and a school was built there."


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        (("Which town?", "Arn"), ("which  TOWN", "arn."), True),
        (("Which town?", "Arn"), ("Which town?", "Bel"), False),
        (("What is bread made of?", "Flour"), ("Who painted the ceiling?", "Flour"), False),
        ((f"{PASSAGE}\n\nWhat burnt down?", "The mill"), (f"{PASSAGE}\n\nWhat burnt down?", "the mill"), True),
        ((f"{PASSAGE}\n\nWhat burnt down?", "Yes"), (f"{PASSAGE}\n\nIs there a school?", "Yes"), False),
        ((f"{PASSAGE}\n\nDid the mill burn down?", "Yes"), (f"{PASSAGE}\n\nDid the roof burn down?", "Yes"), False),
        ((f"{PASSAGE}\n\nWhat burnt down?", "Mill"), (f"What burnt down?\n\nText: {PASSAGE}", "Mill"), True),
        ((f"{PASSAGE}\n\nWhat burnt down?", "Mill"), (PASSAGE, "Mill"), False),
        ((f"{PASSAGE} Who?", "Holm"), (f"{PASSAGE.replace('forty', 'fifty')} Who?", "Holm"), True),
        ((f"{PASSAGE} Who?", "Holm"), (f"{PASSAGE.replace('. He', ', he')} Who?", "Holm"), True),
        ((f"{PASSAGE} Who?", "Holm"), (f"{PASSAGE.replace('place. Its', 'stead its')} Who?", "Holm"), True),
        (("Sort: the bus was late again", "complaint"), ("Sort: thank you for the quick help", "complaint"), False),
    ],
)
def test_near_copies_say_the_same_in_every_sentence_and_in_the_response(
    one: tuple[str, str], other: tuple[str, str], near: bool
) -> None:
    assert near_pairs(pair(*one), pair(*other)) is near
    assert near_pairs(pair(*other), pair(*one)) is near


@pytest.mark.parametrize(
    ("changed", "answer", "near"),
    [(2, "Education", True), (3, "Education", False), (3, LONG, True), (4, LONG, False)],
)
def test_a_near_copy_has_nearly_all_the_words_and_more_of_them_where_the_answer_is_a_label(
    changed: int, answer: str, near: bool
) -> None:
    original = [f"w{number}" for number in range(40)]
    copy = [f"new{number}" if number < changed else word for number, word in enumerate(original)]

    assert near_pairs(pair(" ".join(original), answer), pair(" ".join(copy), answer)) is near


def test_short_prompts_that_differ_in_a_word_are_two() -> None:
    assert not near_pairs(pair("Sort this: I loved the film", "good"), pair("Sort this: I loved the book", "good"))


def test_a_long_list_of_labels_does_not_make_two_short_texts_one() -> None:
    labels = "Sort the text into one of these topics: " + ", ".join(f"topic{n}" for n in range(30)) + "."
    one = f"{labels} Write the topic alone.\n\nText: It rained on the way home.\n\nTopic:"
    other = f"{labels} Write the topic alone.\n\nText: She sold her old car.\n\nTopic:"

    assert not near_pairs(pair(one, "topic7"), pair(other, "topic7"))
    assert near_pairs(pair(one, "topic7"), pair(one.replace("way", "road"), "topic7"))


def test_responses_must_be_alike_too() -> None:
    prompt = f"{PASSAGE} What happened?"
    told = "The mill burnt down and a school was built there."

    assert near_pairs(pair(prompt, told), pair(prompt, told.replace("was built", "was put up")))
    assert not near_pairs(pair(prompt, told), pair(prompt, "Nothing at all happened in the town."))


@pytest.mark.parametrize(
    ("one", "other", "f1"),
    [("a b c", "a b c", 1.0), ("a b c d", "a c d e", 0.75), ("a", "b", 0.0), ("a b", "a", 2 / 3), ("", "", 1.0)],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(one: str, other: str, f1: float) -> None:
    assert rouge_l(one.split(), other.split()) == pytest.approx(f1)


@given(st.text(), st.text())
def test_a_pair_is_a_near_copy_of_itself(instruction: str, response: str) -> None:
    assert near_pairs(pair(instruction, response), pair(instruction, response))
