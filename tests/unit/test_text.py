"""Words and sentences."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.text import sentences, without_login, words


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_plain_text_are_runs_of_letters_digits_and_underscores(text: str) -> None:
    assert words(text) == re.findall(r"\w+", text.lower())


@given(st.text())
def test_words_hold_every_letter_and_nothing_else(text: str) -> None:
    assert "".join(words(text)) == "".join(re.findall(r"\w", text.lower()))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The mill's 2 doors: re-built!", ["the", "mill", "s", "2", "doors", "re", "built"]),
        ("Stra\u00dfe nach M\u00fcnchen", ["stra\u00dfe", "nach", "m\u00fcnchen"]),
        ("\u6771\u4eac Tower", ["\u6771", "\u4eac", "tower"]),
        ("", []),
    ],
)
def test_words_are_in_lower_case_and_single_letters_where_a_script_has_no_spaces(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_sentences_end_with_a_mark_or_a_line_and_questions_are_known() -> None:
    found = sentences('It burnt. "Who built it?" Nobody\nknows\u3002\u8ab0\uff1f  ...')

    assert [(" ".join(sentence.words), sentence.question) for sentence in found] == [
        ("it burnt", False),
        ("who built it", True),
        ("nobody", False),
        ("knows", False),
        ("\u8ab0", True),
    ]


def test_an_address_is_shown_without_who_logs_in_there() -> None:
    told = "API request to https://ann:open%20sesame@mlflow.example:443/api failed; see http://docs.example/@ann"
    assert without_login(told) == (
        "API request to https://mlflow.example:443/api failed; see http://docs.example/@ann"
    )
    assert without_login("http://ann:p@ss@host/a is away") == "http://host/a is away"
    assert without_login("postgresql://ann@db/mlflow, ann@example.com") == "postgresql://db/mlflow, ann@example.com"
