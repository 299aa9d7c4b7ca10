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
        (-0, 0.0),
        (1e2, 100.0),
    ],
)
def test_a_score_is_read_as_models_write_it(value: Any, score: float) -> None:
    assert points(value) == score


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, "", "high", "85 points", "8.5/10", "-5", "101", "1e2", "85,5", "nan", "0x10", "8 5", "-0",
        "\uff18\uff15", "\u0668\u0665", "8\u0665", "\U0001d7d6", "85\u00a0%", "1_0",
        "+85", "85.", ".5", "\u00b2", (10, 100), {},
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


def test_minus_nothing_is_nothing() -> None:
    assert str(points(-0.0)) == "0.0"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"wanted": 10, "wanted": 100}', (10, 100)),
        ('{"wanted": 10, "other": 1, "wanted": 100, "wanted": "x"}', (10, 100, "x")),
        ('{"wanted": 85, "wanted": 85.0}', 85),
        ('{"wanted": {"score": 10, "score": 100}}', {"score": (10, 100)}),
        ('{"wanted": 10, "w\\u0061nted": 100}', (10, 100)),
        ('{"wanted": "\\ud83d", "wanted": 1}', ("\ufffd", 1)),
    ],
)
def test_a_key_that_stands_twice_with_different_values_has_both(text: str, value: Any) -> None:
    assert last_object(text, having="wanted") == {"wanted": value} | ({"other": 1} if "other" in text else {})


OTHERS = '{"wanted": 100, "why": "it says so"}'


@pytest.mark.parametrize(
    "text",
    [
        OTHERS,
        f"```json\n{OTHERS}\n```",
        OTHERS.replace(" ", "\n\n"),
        OTHERS.replace("100", "100.0"),
        OTHERS.replace("100", "1e2"),
        '{"why": "it says so", "wanted": 100}',
        '{"wanted": 100}',
        f"{OTHERS} {OTHERS}",
        OTHERS.replace('"', "'"),
        OTHERS.removesuffix("}"),
        "{wanted: 100}",
        "",
    ],
)
@pytest.mark.parametrize(
    "besides",
    [OTHERS, f"a {OTHERS} b", json.dumps(OTHERS), json.dumps({"a": [{"b": OTHERS}]}), f'{{"a": [{OTHERS}]}}'],
)
def test_an_object_that_stands_in_what_was_asked_about_does_not_count(text: str, besides: str) -> None:
    assert last_object(text, having="wanted", besides=besides) is None
    assert last_object(f'{{"wanted": 1}} {text}', having="wanted", besides=besides) == {"wanted": 1}


@pytest.mark.parametrize(
    "own",
    [
        '{"wanted": 10, "why": "it says so"}',
        '{"wanted": 100, "why": "it says so too"}',
        '{"wanted": 10}',
        '{"wanted": 100, "why": "it says so", "more": 1}',
    ],
)
def test_an_object_that_only_resembles_one_that_was_asked_about_counts(own: str) -> None:
    assert last_object(f"{own} {OTHERS}", having="wanted", besides=OTHERS) == json.loads(own)


def test_of_several_objects_of_its_own_the_last_one_wins() -> None:
    text = f'{{"wanted": 1}} {OTHERS} No: {{"wanted": 2}} {OTHERS}'

    assert last_object(text, having="wanted", besides=OTHERS) == {"wanted": 2}


@pytest.mark.parametrize(
    "besides", ["", "wanted: 100", '"wanted": 100', "{unwanted}", '{"other": {"wan": "ted"}}', "{'other': 1}"]
)
def test_where_no_such_object_was_asked_about_a_reply_is_read_and_mended_as_always(besides: str) -> None:
    assert last_object("I think {'wanted': 1,}", having="wanted", besides=besides) == {"wanted": 1}


@given(st.text() | st.just(OTHERS), st.text() | st.just(OTHERS), st.text() | st.just(OTHERS))
@example('{"wanted": 1}' + OTHERS, "\\" * 1_000, OTHERS)
@example(OTHERS, '{"a":' * NESTED, OTHERS)
@example('{"wanted": 1}', '{"a": ' * 700 + OTHERS + "}" * 700, "")
def test_whatever_was_asked_about_what_stands_there_is_never_read(reply: str, before: str, after: str) -> None:
    found = last_object(reply, having="wanted", besides=before + OTHERS + after)

    assert found is None or ("wanted" in found and found != json.loads(OTHERS))


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param("{'wanted': " + "{1" * 1_200 + "}" * 1_200, id="a guess within a guess: 20 seconds"),
        pytest.param("{'wanted': 1}" + ("{1" * 60 + "}" * 60) * 30, id="one guess after another: half a minute"),
        pytest.param("{'wanted': 1," + " " * 100_000, id="too long to be mended"),
        pytest.param('{"wanted": 1} ' + '{"' * 10_000, id="more objects begin than anybody writes"),
        pytest.param(('{"wanted":' * 900 + "1" + "}" * 900) * 10, id="900 deep, ten times"),
    ],
)
def test_a_reply_that_would_take_minutes_is_given_up(endless: str) -> None:
    assert last_object(endless, having="wanted") is None


@pytest.mark.parametrize("wrap", ["{}", "```json\n{}", "Sure, it's here: {}"])
def test_a_long_reply_that_was_cut_is_mended_all_the_same(wrap: str) -> None:
    code = "int f() { return 1; }\n" * 20 + "}"
    rows = [{"instruction": f'Write "f{number}" in C, it\'s {{easy}}', "response": code} for number in range(120)]
    cut = wrap.format(json.dumps({"wanted": rows})[:60_000])
    found = last_object(cut, having="wanted")

    assert found is not None
    assert found["wanted"][:100] == rows[:100]
