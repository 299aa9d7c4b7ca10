"""Inputs, outputs and expectations in the shapes that MLflow's users have them."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from mlflow_llamaduo.core.records import Message, Pair
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.judging.given import answer, instruction, reference, response_of

ASKED = [{"role": "user", "content": "Which town?"}]
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Arn"}}],
}
ITEMS = [
    {"type": "reasoning", "summary": []},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Arn"}]},
]


@pytest.mark.parametrize(
    "inputs",
    [
        "Which town?",
        ASKED,
        {"messages": ASKED},
        {"messages": ["Which town?"]},
        {"messages": ASKED, "model": "m", "temperature": 0},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Which town?"}]}]},
        {"input": ASKED},
        {"question": "Which town?"},
        {"prompt": "Which town?", "max_tokens": 5},
        {"instruction": "Which town?", "input": ""},
        {"my own name": "Which town?"},
        {"request": {"messages": ASKED}},
    ],
)
def test_an_instruction_is_read_in_every_shape(inputs: Any) -> None:
    assert instruction(inputs) == "Which town?"


@pytest.mark.parametrize("more", ["input", "context"])
def test_what_belongs_to_an_instruction_follows_it_after_a_blank_line(more: str) -> None:
    assert instruction({"question": "Which town?", more: "Arn is a town."}) == "Which town?\n\nArn is a town."


def test_several_turns_are_read_as_those_of_a_pair() -> None:
    turns = [{"role": "system", "content": "Be brief."}, *ASKED]
    pair = Pair((Message("system", "Be brief."), Message("user", "Which town?")), "Arn")

    assert instruction({"messages": turns}) == pair.instruction
    assert instruction({"system": "Be brief.", "messages": ASKED}) == pair.instruction


@pytest.mark.parametrize(
    "outputs",
    [
        "Arn",
        COMPLETION,
        ChatCompletion.model_validate(COMPLETION),
        SimpleNamespace(to_dict=lambda: COMPLETION),
        {"choices": [{"text": "Arn"}]},
        {"messages": [*ASKED, {"role": "assistant", "content": "Arn"}]},
        [*ASKED, {"role": "assistant", "content": "Arn"}],
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "?"}, {"type": "text", "text": "Arn"}]},
        {"output": ITEMS},
        {"response": "Arn", "latency": 3},
        {"answer": {"content": "Arn"}},
        {"town": "Arn"},
    ],
)
def test_an_answer_is_read_in_every_shape(outputs: Any) -> None:
    assert answer(outputs) == "Arn"


def test_an_empty_answer_is_an_answer() -> None:
    assert response_of("Which town?", "", {"reference": "Arn"}).text == ""


@pytest.mark.parametrize("name", ["expected_response", "reference"])
def test_the_reference_is_among_the_expectations(name: str) -> None:
    assert reference({name: "Arn", "expected_facts": ["a"]}) == "Arn"


def test_answers_to_one_prompt_have_its_id() -> None:
    one, other = (response_of("Which town?", text, {"reference": "Arn"}) for text in ("Arn", "Bern"))

    assert one.pair_id == other.pair_id == Pair((Message("user", "Which town?"),), "Arn").id


@pytest.mark.parametrize(
    ("inputs", "outputs", "expectations", "told"),
    [
        (None, "Arn", {"reference": "Arn"}, "the inputs are missing: give the instruction"),
        ({}, "Arn", {"reference": "Arn"}, "name it instruction"),
        ({"a": "1", "b": "2"}, "Arn", {"reference": "Arn"}, r"fields \(a, b\): name it instruction"),
        ("Which?", None, {"reference": "Arn"}, "the outputs are missing: give the answer"),
        ("Which?", float("nan"), {"reference": "Arn"}, "the outputs are missing"),
        ("Which?", {"a": 1, "b": 2}, {"reference": "Arn"}, r"fields \(a, b\): name it response"),
        ("Which?", [*ASKED], {"reference": "Arn"}, "end with a turn of 'user'"),
        ("Which?", {"role": "assistant", "tool_calls": [{}]}, {"reference": "Arn"}, "calls a tool"),
        ("Which?", {"content": [{"type": "image_url"}]}, {"reference": "Arn"}, "'image_url': only text"),
        ("Which?", "Arn", None, 'expectations={"expected_response"'),
        ("Which?", "Arn", {"expected_facts": ["a"]}, r"expectations \(expected_facts\)"),
    ],
)
def test_what_is_missing_is_told_with_how_to_give_it(inputs: Any, outputs: Any, expectations: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        response_of(inputs, outputs, expectations)


def test_what_is_nested_too_deep_is_told_too() -> None:
    deep: Any = "Arn"
    for _ in range(5000):
        deep = {"a": deep}

    with pytest.raises(DataError, match="deep"):
        response_of("Which?", deep, {"reference": "Arn"})


WILD = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "content", "role", "choices", "output", "input", "x"]), inner)
    ),
    max_leaves=8,
)


@given(inputs=WILD, outputs=WILD, expectations=WILD)
def test_whatever_comes_is_read_or_told(inputs: Any, outputs: Any, expectations: Any) -> None:
    try:
        read = response_of(inputs, outputs, expectations)
    except DataError:
        return
    assert all(isinstance(text, str) for text in (read.instruction, read.text, read.reference))
