import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.replies import last_object, points

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PROSE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}[]\"'`#/\\"), max_size=40)
NESTED = 20_000


@given(st.text())
@example("[" * NESTED)
@example("[" * 900)
@example('{"wanted":' * NESTED)
@example('{"wanted": ' + "9" * 5000 + "}")
def test_any_text_is_read_to_the_wanted_object_or_to_none(text: str) -> None:
    found = last_object(text, having="wanted")

    assert found is None or "wanted" in found


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), JSON)
def test_a_reply_of_plain_json_is_read_as_it_is(rest: dict[str, Any], value: Any) -> None:
    wanted = {**rest, "wanted": value}

    assert last_object(json.dumps(wanted), having="wanted") == wanted


@given(PROSE, PROSE, st.text())
def test_prose_around_an_object_does_not_hide_it(before: str, after: str, value: str) -> None:
    wanted = {"wanted": value}

    assert last_object(f"{before} {json.dumps(wanted)} {after}", having="wanted") == wanted


@pytest.mark.parametrize(
    "text",
    [
        '{"wanted": 1}',
        '```json\n{"wanted": 1}\n```',
        'Here it is:\n\n```\n{"wanted": 1}\n```\nHope it helps!',
        "{'wanted': 1}",
        '{"wanted": 1,}',
        '{"wanted": 1',
        '\ufeff{"wanted": 1}',
        '{"other": 2}\n{"wanted": 1}',
        '{"wanted": 1}\n{"other": 2}',
        '[{"wanted": 3}, {"wanted": 1}]',
        '{"wanted": 3}{"wanted": 1}',
        'First {"wanted": 3}, no, rather {"wanted": 1}.',
        '<think>{"wanted": 3}</think>\n{"wanted": 1}',
    ],
)
def test_the_last_wanted_object_is_found_in_whatever_wrapping(text: str) -> None:
    assert last_object(text, having="wanted") == {"wanted": 1}


@pytest.mark.parametrize("text", ["", "no", "null", "7", "[]", "{}", '["wanted"]', '{"a": {"wanted": 1}}'])
def test_without_the_wanted_object_there_is_none(text: str) -> None:
    assert last_object(text, having="wanted") is None


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (0, 0.0),
        (100, 100.0),
        (85, 85.0),
        (85.5, 85.5),
        ("85", 85.0),
        ("85.5", 85.5),
        (" 85/100 ", 85.0),
        ("85.5 / 100", 85.5),
        ("85 %", 85.0),
        ("100%", 100.0),
    ],
)
def test_a_score_is_read_as_models_write_it(value: Any, score: float) -> None:
    assert points(value) == score


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, "", "high", "85 points", "8.5/10", "-5", "101", "1e2", "85,5", "nan", "0x10", "8 5",
        -1, 100.5, 101, float("nan"), float("inf"), [85], {"score": 85},
        pytest.param(10**400, id="an integer that no float can hold"),
    ],
)  # fmt: skip
def test_what_is_no_score_from_0_to_100_is_none_and_not_brought_into_range(value: Any) -> None:
    assert points(value) is None


@given(st.text() | st.integers() | st.floats() | JSON)
def test_any_value_is_a_score_in_range_or_none(value: Any) -> None:
    score = points(value)

    assert score is None or 0 <= score <= 100


@given(st.floats(0, 100).map(lambda value: round(value, 3)))
def test_a_score_says_the_same_as_number_and_as_text(value: float) -> None:
    assert points(value) == points(f"{value:.3f}") == points(f"{value:.3f}/100") == value


WHOLE = '{"score": 85, "reason": "good"}'


@pytest.mark.parametrize("cut", ['{"score": 8', '{"score": 1, "rea', "{'score': 1", '```json\n{"score": 8'])
def test_an_object_that_was_cut_does_not_win_over_a_whole_one(cut: str) -> None:
    assert last_object(f"{WHOLE}\n\nOn second thought:\n{cut}", having="score") == {"score": 85, "reason": "good"}


@pytest.mark.parametrize(
    "later", ['{"score": 15}', "{'score': 15,}", '```json\n{"score": 15}\n```', "{score: 15} I think"]
)
def test_a_whole_object_wins_over_the_ones_before_it_however_it_is_written(later: str) -> None:
    assert last_object(f"{WHOLE}\nNo:\n{later}", having="score") == {"score": 15}


def test_words_with_braces_after_the_verdict_take_nothing_from_it() -> None:
    assert last_object(WHOLE + " (see {this} and {that})", having="score") == {"score": 85, "reason": "good"}
