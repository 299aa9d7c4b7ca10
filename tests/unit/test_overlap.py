"""How far a response overlaps with a reference."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.overlap import (
    LABEL_CHARACTERS,
    containment,
    edit_similarity,
    exact_match,
    label_match,
    rouge_l,
    token_f1,
)

PROJECTS = Path(__file__).parents[2] / "projects"
ALL = (exact_match, token_f1, containment, rouge_l, edit_similarity, label_match)
any_text = st.text(st.characters())  # control characters and half ones among them
few_words = st.lists(st.sampled_from(["mill", "river", "arn", "1902"]), max_size=8)


def common(one: list[str], other: list[str]) -> int:
    """The length of the longest common subsequence, by its definition."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + common(one[1:], other[1:])
    return max(common(one[1:], other), common(one, other[1:]))


@given(any_text, any_text)
def test_every_measure_is_a_share_and_one_for_the_same_text(one: str, other: str) -> None:
    for measure in ALL:
        assert 0 <= measure(one, other) <= 1
        assert measure(one, one) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "\x00\x1b[31m",
        "\ud800",
        "\u0645\u0637\u062d\u0646\u0629",
        "\u6771\u4eac",
        "\U0001f600",
        "((((",
        "a:",
    ],
)
def test_hostile_and_foreign_texts_are_texts_like_any_other(text: str) -> None:
    long = text * 25_000

    for measure in ALL:
        assert measure(long, long) == 1
        assert measure("the old mill", long) < 0.5
        assert measure(long, "the old mill") < 0.5


@pytest.mark.parametrize(
    ("reference", "response", "same"),
    [
        ("The old mill.", "old  MILL", 1),
        ("The old mill", "It was the old mill", 0),
        ("old mill", "mill old", 0),
        ("3.5", "35", 0),
        ("A", "a.", 1),
        ("A", "", 0),
        ("A", "the", 0),
        ("+", "-", 0),
        ("+", " + ", 1),
        ("", "", 1),
    ],
)
def test_an_exact_match_is_one_of_words_and_of_signs_where_there_are_none(
    reference: str, response: str, same: float
) -> None:
    assert exact_match(reference, response) == exact_match(response, reference) == same


def test_token_f1_counts_a_word_as_often_as_both_have_it() -> None:
    assert token_f1("the old mill", "old red mill house") == pytest.approx(2 * 2 / (2 + 4))
    assert token_f1("bell bell", "bell") == pytest.approx(2 / 3)
    assert token_f1("mill", "river") == 0


def test_containment_is_the_share_of_the_references_words() -> None:
    assert containment("red old mill", "an old mill") == pytest.approx(2 / 3)
    assert containment("old mill", "nobody knows the old mill") == 1


def test_rouge_l_keeps_the_order_and_counts_articles() -> None:
    assert rouge_l("the cat sat on the mat", "The cat lay on a mat.") == pytest.approx(2 * 4 / 12)
    assert rouge_l("mill old", "old mill") == pytest.approx(2 * 1 / 4)


@given(few_words, few_words)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    f1 = 2 * common(one, other) / (len(one) + len(other)) if one or other else 1

    assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(f1)


def test_edit_similarity_is_the_share_of_characters_that_can_stay() -> None:
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("abcd", "ab") == 0.5
    assert edit_similarity("return x\n", "  return x") == 1
    assert edit_similarity("Return x", "return x") == pytest.approx(7 / 8)


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("billing", "**Billing**"),
        ("billing", "The category is: Billing."),
        ("billing", "I think this is classified as billing."),
        ("billing", "It\u2019s billing!"),
        ("billing", "**Label:** Billing\n\nReason: the customer was charged twice in May."),
        ("billing", "The customer was charged twice and wants the money back.\n\nAnswer: billing"),
        ("billing", "Label: billing\nConfidence: 0.9"),
        ("billing", "**Label:**\n\nbilling"),
        ("billing", "Billing:"),
        ("as is", "As is."),
        ("Billing", '{"label": "billing"}'),
        ("Billing", "Billing: the customer was charged twice in May."),
        ("Billing", "Billing. The customer was charged twice in one month."),
        ("positive", "Sentiment of the review: positive"),
        ("The ticket goes to Network.", "network"),
        ("gardening", "The topic is gardening."),
        ("parents, pupils", "pupils and parents"),
        ("parents, pupils", "Labels:\n- Pupils\n- Parents"),
        ("lost and found", "Lost and Found"),
        ("barber's shop", "Barber\u2019s shop"),
        ("not_spam", "Not spam"),
        ("#complaint", "complaint"),
        ("A", "The answer is A."),
        ("-1", "Label: -1."),
        ("C++", "It is C++."),
        ("+", " + "),
    ],
)
def test_what_people_write_around_a_label_does_not_change_it(reference: str, response: str) -> None:
    assert label_match(reference, response) == label_match(response, reference) == 1


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("billing", ""),
        ("billing", "delivery"),
        ("billing", "billing or delivery"),
        ("billing", "billing, delivery"),
        ("billing", "Billing. Delivery."),
        ("billing", "Label: billing\nLabel: delivery"),
        ("billing", "It is not billing."),
        ("billing", "None of these is billing"),
        ("billing", "This isn't billing"),
        ("barber's shop", "shop"),
        ("science fiction", "fiction science"),
        ("parents, pupils", "parents"),
        ("A", ""),
        ("A", "the"),
        ("A-", "A"),
        ("C", "C++"),
        ("-1", "1"),
        ("12:30", "30"),
        ("1,000", "000, 1"),
        ("+", "-"),
    ],
)
def test_another_label_a_hedge_and_a_denial_are_no_match(reference: str, response: str) -> None:
    assert label_match(reference, response) == label_match(response, reference) == 0


def test_a_label_behind_a_wall_of_text_is_not_read() -> None:
    assert label_match("billing", f"{'.' * (LABEL_CHARACTERS - 20)}\nLabel: billing") == 1
    assert label_match("billing", f"{'.' * LABEL_CHARACTERS}\nLabel: billing") == 0


def test_no_two_answers_of_the_project_are_taken_for_the_same_label() -> None:
    lines = (PROJECTS / "classification" / "coverage.jsonl").read_text(encoding="utf-8").splitlines()
    answers = sorted({json.loads(line)["messages"][-1]["content"] for line in lines})
    alike = {(one, two) for one in answers for two in answers if one < two and label_match(one, two)}

    assert len(answers) > 100
    assert alike == {("This review is about the delivery.", "delivery")}
