"""A row in any shape that people have becomes the same pair, or a reason why it is none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Message, Pair
from mlflow_llamaduo.coverage.rows import REASONS, Bad
from mlflow_llamaduo.coverage.shapes import FIELDS, read_row
from mlflow_llamaduo.coverage.turns import ROLES
from tests.unit.builders import pair

Json = dict[str, Any]

USER, ANSWER = {"role": "user", "content": "Which town?"}, {"role": "assistant", "content": "Arn"}
COMPLETION = {"object": "chat.completion", "choices": [{"message": ANSWER, "finish_reason": "stop"}]}
PAYLOAD = {"id": "c1", "call_type": "acompletion", "status": "success", "messages": [USER], "response": COMPLETION}
SPEND = {
    "request_id": "c1",
    "call_type": "acompletion",
    "status": "success",
    "messages": "{}",
    "proxy_server_request": json.dumps({"model": "m", "messages": [USER]}),
    "response": json.dumps(COMPLETION),
}

SAME = [
    ("messages", {"messages": [USER, ANSWER]}),
    ("messages", {"messages": json.dumps([USER, ANSWER])}),
    ("messages", {"prompt": "Which town?", "prompt_id": "p", "messages": [USER, ANSWER]}),
    ("messages", {"messages": [{"role": "system", "content": ""}, USER, ANSWER]}),
    ("messages", {"messages": [{**USER, "content": [{"type": "text", "text": "Which town?"}]}, ANSWER]}),
    ("messages", {"messages": [USER, ANSWER], "conversations": None, "tools": None}),
    ("openai", {"messages": [USER, ANSWER], "tools": [], "parallel_tool_calls": False}),
    ("openai", {"messages": [USER, {**ANSWER, "weight": 1}]}),
    ("openai", {"messages": [USER, ANSWER, {**USER, "content": "more?"}, {**ANSWER, "content": "no", "weight": 0}]}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Which town?"}, {"from": "gpt", "value": "Arn"}]}),
    ("sharegpt", {"conversations": [USER, ANSWER]}),
    ("instruction/input/output", {"instruction": "Which town?", "input": "", "output": "Arn"}),
    ("instruction/input/output", {"instruction": "Which town?", "context": None, "response": "Arn"}),
    ("prompt/completion", {"prompt": "Which town?", "completion": "Arn"}),
    ("prompt/completion", {"prompt": [USER], "completion": [ANSWER]}),
    ("prompt/completion", {"prompt": json.dumps([USER]), "completion": json.dumps([ANSWER])}),
    ("prompt/completion", {"prompt": "Which town?", "chosen": [USER, ANSWER], "rejected": [USER, USER]}),
    ("prompt/completion", {"prompt": "Which town?", "response": "Arn\n"}),
    ("prompt/completion", {"question": "Which town?", "answer": "Arn"}),
    ("prompt/completion", {"input": "Which town?", "output": "Arn"}),
    ("prompt/completion", {"messages": [USER], "response": "Arn"}),
    ("litellm", PAYLOAD),
    ("litellm", {**PAYLOAD, "response": "Arn"}),
    ("litellm", {**PAYLOAD, "messages": "Which town?"}),
    ("litellm", {"messages": [USER], "response": COMPLETION}),
    ("litellm", {"request": {"messages": [USER]}, "response": json.dumps(COMPLETION)}),
    ("litellm", {"request": json.dumps({"messages": [USER]}), "response": "Arn"}),
    ("litellm", SPEND),
    ("litellm", {**SPEND, "proxy_server_request": {"url": "/v1", "body": {"messages": [USER]}}}),
    ("litellm", {**PAYLOAD, "response": {"object": "text_completion", "choices": [{"text": "Arn"}]}}),
]


@pytest.mark.parametrize(("shape", "row"), SAME)
def test_every_shape_gives_the_same_pair_and_its_name(shape: str, row: Json) -> None:
    shaped = read_row(row)

    assert (shaped.shape, shaped.pair) == (shape, pair())


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER]},
        {"messages": [{"role": "developer", "content": "Be brief."}, USER, ANSWER]},
        {"messages": [USER, ANSWER], "system": "Be brief."},
        {"system_prompt": "Be brief.", "question": "Which town?", "response": "Arn"},
        {"system": "Be brief.", "conversations": [{"from": "human", "value": "Which town?"}, ANSWER]},
        {"conversations": [{"from": "system", "value": "Be brief."}, USER, ANSWER], "system": "another"},
    ],
)
def test_a_system_message_stands_before_the_question_wherever_it_was(row: Json) -> None:
    assert read_row(row).pair == Pair((Message("system", "Be brief."), Message("user", "Which town?")), "Arn")


@pytest.mark.parametrize("field", ["input", "context"])
@pytest.mark.parametrize(("lead", "answer"), [("instruction", "output"), ("question", "answer")])
def test_the_input_follows_its_instruction_after_a_blank_line(lead: str, field: str, answer: str) -> None:
    row = {lead: "Name the town.\n", field: "\n  Arn is old.\n", answer: "Arn"}

    assert read_row(row).pair == pair("Name the town.\n\n  Arn is old.")


def test_earlier_rounds_stand_before_the_instruction() -> None:
    row = {"instruction": "q2", "output": "a2", "history": [["q1", "a1"]]}

    assert [m.content for m in read_row(row).pair.prompt] == ["q1", "a1", "q2"]


def test_a_conversation_ends_at_its_last_assistant_turn_and_what_follows_may_be_anything() -> None:
    turns = [USER, {**ANSWER, "content": "Bel"}, USER, ANSWER, {"role": "user", "content": None}]

    assert [m.content for m in read_row({"messages": turns}).pair.prompt] == ["Which town?", "Bel", "Which town?"]


def test_parts_of_an_answer_go_on_and_what_the_model_thought_is_left_out() -> None:
    thought, parts = {"type": "thinking", "thinking": "hm"}, [{"type": "text", "text": text} for text in ("Ar", "n")]

    assert read_row({"messages": [USER, {**ANSWER, "content": [thought, *parts]}]}).pair == pair()


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "Arn burnt down."}, {"type": "input_text", "text": "Which town?"}]

    assert read_row({"messages": [{**USER, "content": parts}, ANSWER]}).pair == pair("Arn burnt down.\nWhich town?")


def test_the_indentation_of_code_stays() -> None:
    row = {"prompt": "\n    if x:\n        y\n\n", "completion": "\r\n    pass  \n"}

    assert read_row(row).pair == pair("    if x:\n        y", "    pass")


@pytest.mark.parametrize(
    ("row", "own_id"),
    [
        ({}, None),
        ({"id": "a", "uuid": "b"}, "a"),
        ({"id": "", "uuid": "b"}, "b"),
        ({"id": 7}, "7"),
        ({"id": True, "trace_id": "t"}, "t"),
        ({"id": 10**5000}, None),
        ({"id": ["a"]}, None),
        ({"prompt_id": "p"}, None),
        ({"request_id": "r", "trace_id": "t"}, "r"),
    ],
)
def test_a_rows_id_is_the_first_that_identifies_it(row: Json, own_id: str | None) -> None:
    assert read_row({"messages": [USER, ANSWER], **row}).id == own_id


@pytest.mark.parametrize("empty", [{}, {"category": None, "source": None}, {"category": "", "source": ""}])
def test_a_row_without_category_and_source_has_the_usual_ones(empty: Json) -> None:
    assert read_row({"messages": [USER, ANSWER], **empty}).pair == pair()


def messages(*turns: Any, **more: Any) -> Json:
    return {"messages": list(turns), **more}


CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
IMAGE = {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {}}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "unknown_shape"),
        ([USER, ANSWER], "unknown_shape"),
        ({"text": "Which town? Arn"}, "unknown_shape"),
        ({"instruction": "q", "output": "a", "history": {"q": "a"}}, "unknown_shape"),
        ({"instruction": "q", "output": "a", "history": 7}, "unknown_shape"),
        (messages(), "no_prompt"),
        (messages(ANSWER), "no_prompt"),
        (messages({"role": "user", "content": " \n"}, ANSWER), "no_prompt"),
        (messages(USER, ANSWER, ANSWER), "no_prompt"),
        ({"response": "Arn"}, "no_prompt"),
        ({"prompt": " ", "completion": "Arn"}, "no_prompt"),
        (messages(USER), "no_answer"),
        (messages(USER, {"role": "assistant", "content": " "}), "no_answer"),
        (messages(USER, {"role": "assistant", "content": None, "refusal": "I cannot."}), "no_answer"),
        (messages(USER, {**ANSWER, "weight": 0}), "no_answer"),
        ({"prompt": "q", "completion": None}, "no_answer"),
        ({"prompt": "q", "completion": ""}, "no_answer"),
        (messages(USER, CALL), "not_text"),
        (messages(USER, CALL, {"role": "tool", "content": "7"}, ANSWER), "not_text"),
        (messages(USER, {**CALL, "content": "I will look it up."}), "not_text"),
        (messages(IMAGE, ANSWER), "not_text"),
        (messages({"role": "user", "content": 7}, ANSWER), "not_text"),
        ({"prompt": {"q": 1}, "completion": "Arn"}, "not_text"),
        ({"instruction": "q", "input": ["a"], "output": "Arn"}, "not_text"),
        (messages(USER, {"role": "robot", "content": "Arn"}), "bad_turn"),
        (messages("Which town?", "Arn"), "bad_turn"),
        (messages(USER, ANSWER, category=3), "bad_field"),
        (messages(USER, ANSWER, source=["x"]), "bad_field"),
        (messages(USER, ANSWER, category="\ud83d"), "encoding"),
        (messages({"role": "user", "content": "cut \ud83d"}, ANSWER), "encoding"),
        ({"messages": "[{'role': 'user'}]"}, "not_json"),
        ({"messages": "[" * 100_000}, "too_deep"),
        ({**PAYLOAD, "status": "failure", "response": None, "error_str": "no credit"}, "failed"),
        ({**PAYLOAD, "response": {"object": "list", "data": [[0.1]], "usage": {}}}, "not_chat"),
        ({**SPEND, "response": json.dumps({"object": "response", "output": []})}, "not_chat"),
        ({**PAYLOAD, "response": {"choices": []}}, "no_answer"),
        ({**PAYLOAD, "response": {"choices": [{"message": ANSWER}, {"message": ANSWER}]}}, "no_answer"),
        ({**PAYLOAD, "response": {"choices": [{"message": {"content": ""}}]}}, "no_answer"),
        ({**PAYLOAD, "response": {"choices": [{"message": ANSWER, "finish_reason": "length"}]}}, "cut_off"),
        ({**PAYLOAD, "response": {"choices": [{"message": CALL}]}}, "not_text"),
        ({**PAYLOAD, "response": "redacted-by-litellm"}, "not_kept"),
        ({**PAYLOAD, "response": "Ar... (litellm_truncated skipped 90 chars. Full) ...n"}, "not_kept"),
        ({**SPEND, "response": "{}"}, "not_kept"),
        ({**SPEND, "proxy_server_request": "{}"}, "not_kept"),
    ],
)
def test_a_row_that_is_no_pair_says_why(row: Any, reason: str) -> None:
    with pytest.raises(Bad) as caught:
        read_row(row)
    assert caught.value.reason == reason
    assert str(caught.value) == caught.value.detail
    assert "\n" not in caught.value.detail


def test_an_answer_that_is_json_itself_stays_text() -> None:
    for text in ('{"town": "Arn"}', "[1, 2]", "{not JSON"):
        assert read_row({**PAYLOAD, "response": text}).pair.response == text
        assert read_row({"prompt": "Which town?", "completion": text}).pair.response == text


def test_a_message_about_a_row_stays_short_whatever_is_in_the_row() -> None:
    for row in (
        {"messages": [{"role": "x" * 1_000_000}]},
        {"y" * 1_000_000: 1},
        {**PAYLOAD, "call_type": "z" * 9999},
    ):
        with pytest.raises(Bad) as caught:
            read_row({**row, "response": [1]} if "call_type" in row else row)
        assert len(caught.value.detail) < 400


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud83d")
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from([*ROLES, "tool"]) | JSON,
            "from": st.sampled_from([*ROLES]) | JSON,
            "content": st.text(min_size=1) | JSON,
            "value": st.text(min_size=1) | JSON,
            "weight": st.integers(0, 1) | JSON,
            "tool_calls": JSON,
        },
    )
    | JSON,
    max_size=4,
)
CELLS = JSON | TURNS | (JSON | TURNS).map(json.dumps) | st.just(COMPLETION)
HELD = ("messages", "conversations", "prompt completion", "instruction output", "call_type request response")
ROWS = JSON | st.builds(
    lambda names, held, more: {**more, **dict(zip(names.split(), held, strict=False))},
    st.sampled_from(HELD),
    st.lists(CELLS, min_size=3, max_size=3),
    st.dictionaries(st.sampled_from(sorted(FIELDS)), CELLS, max_size=3),
)


@given(ROWS)
def test_any_row_is_a_pair_or_has_a_known_reason(row: Any) -> None:
    try:
        shaped = read_row(row)
    except Bad as bad:
        assert bad.reason in REASONS
        bad.detail.encode()
    else:
        assert shaped.pair.response.strip()
        assert shaped.pair.prompt[-1].role == "user"
        json.dumps(shaped.pair.row(), ensure_ascii=False).encode()
