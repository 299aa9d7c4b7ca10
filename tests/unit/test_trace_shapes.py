"""What MLflow 3.17 recorded of openai, anthropic, litellm and langchain, read as conversations.

The recordings were made against a double of the providers' APIs; `traces._plain` wrote the spans.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.coverage.rows import REASONS, Bad
from mlflow_llamaduo.coverage.trace_shapes import chat
from mlflow_llamaduo.coverage.traces import satisfies

RECORDED = Path(__file__).parents[1] / "data" / "traces"
SYSTEM = "You answer from the passage only."
PASSAGE, QUESTION = "The mill at Arn burnt down in 1902.", "When did the mill burn down?"
ANSWER = "The mill at Arn burnt down in 1902."

Spans = list[dict[str, Any]]


def recorded(name: str) -> Spans:
    spans: Spans = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return spans


def why_not(spans: Spans) -> tuple[str, str]:
    with pytest.raises(Bad) as caught:
        chat(spans)
    return caught.value.reason, caught.value.detail


def call(inputs: Any, outputs: Any, **more: Any) -> dict[str, Any]:
    """A call to a chat model, alone in its trace."""
    return {
        "name": "call", "type": "CHAT_MODEL", "root": True, "ok": True, "error": "", "end": 1,
        "inputs": inputs, "outputs": outputs, **more,
    }  # fmt: skip


def with_output(name: str, **changed: Any) -> Spans:
    """A recording of one call, with other fields in what came back, or in its one choice."""
    (span,) = recorded(name)
    holder = span["outputs"]["choices"][0] if "choices" in span["outputs"] else span["outputs"]
    holder.update(changed)
    return [span]


@pytest.mark.parametrize(
    "name",
    [
        "openai_chat",
        "openai_chat_stream",
        "openai_retry_in_function",
        "openai_responses",
        "openai_responses_stream",
        "anthropic",
        "anthropic_blocks",
        "litellm",
        "litellm_stream",
        "litellm_in_function",
        "litellm_responses",
        "langchain_chat",
        "langchain_chain",
        "langchain_anthropic",
        "langchain_responses_api",
        "langgraph_agent_no_tools",
    ],
)
def test_every_library_leaves_the_same_conversation(name: str) -> None:
    assert chat(recorded(name)) == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{PASSAGE} {QUESTION}"},
        {"role": "assistant", "content": ANSWER},
    ]


@pytest.mark.parametrize("name", ["openai_completion", "litellm_text", "langchain_llm"])
def test_a_prompt_that_is_one_text_is_the_users_message(name: str) -> None:
    assert chat(recorded(name)) == [
        {"role": "user", "content": f"{PASSAGE} {QUESTION}"},
        {"role": "assistant", "content": ANSWER},
    ]


def test_parts_of_text_are_one_text() -> None:
    _, user, _ = chat(recorded("openai_chat_parts"))
    assert user == {"role": "user", "content": f"{PASSAGE}\n{QUESTION}"}

    _, user, _ = chat(recorded("openai_responses_list"))
    assert user == {"role": "user", "content": f"{PASSAGE} {QUESTION}"}


def test_blocks_of_an_answer_go_on_in_mid_sentence() -> None:
    cited = [{"type": "text", "text": "It burnt down "}, {"type": "text", "text": "in 1902", "citations": []}]

    assert chat(with_output("anthropic", content=cited))[-1]["content"] == "It burnt down in 1902"


def test_what_a_model_thinks_is_no_part_of_a_conversation() -> None:
    thought = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes"}],
    }
    span = call({"messages": [{"role": "user", "content": "A?"}, thought, {"role": "user", "content": "B?"}]}, "No")

    assert [turn["content"] for turn in chat([span])] == ["A?", "Yes", "B?", "No"]


@pytest.mark.parametrize(
    ("name", "reason", "detail"),
    [
        ("openai_error", "failed", "Error code: 400"),
        ("anthropic_error", "failed", "BadRequestError"),
        ("litellm_error", "failed", "litellm.BadRequestError"),
        ("langchain_error", "failed", "Error code: 400"),
        ("openai_chat_tools", "not_text", "a tool was called"),
        ("openai_agent", "not_text", "a tool was called"),
        ("litellm_tools", "not_text", "a tool was called"),
        ("langgraph_agent", "not_text", "a tool was called"),
        ("anthropic_tools", "not_text", "'tool_use'"),
        ("openai_chat_image", "not_text", "'image_url'"),
        ("openai_chat_n2", "no_answer", "2 answers"),
        ("openai_responses_goes_on", "not_kept", "kept by the provider"),
        ("openai_streaming_response", "not_kept", "streamed"),
        ("anthropic_stream", "not_kept", "streamed"),
        ("plain_function", "not_chat", "no messages in span 'plain'"),
    ],
)
def test_a_trace_without_a_conversation_of_text_says_why(name: str, reason: str, detail: str) -> None:
    told = why_not(recorded(name))

    assert told[0] == reason
    assert detail in told[1]
    assert reason in REASONS


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("openai_chat", {"finish_reason": "length"}),
        ("litellm", {"finish_reason": "content_filter"}),
        ("anthropic", {"stop_reason": "max_tokens"}),
        ("openai_responses", {"status": "incomplete"}),
    ],
)
def test_an_answer_that_was_cut_off_is_not_learned(name: str, changed: dict[str, str]) -> None:
    assert why_not(with_output(name, **changed))[0] == "cut_off"


def test_what_a_tool_said_in_the_request_cannot_be_learned() -> None:
    asked = [{"role": "user", "content": "A?"}, {"role": "tool", "content": "1902", "tool_call_id": "call_1"}]

    assert why_not([call({"messages": asked}, "In 1902")])[0] == "not_text"


def test_a_refusal_is_no_answer() -> None:
    refused = with_output("openai_chat", message={"role": "assistant", "content": None, "refusal": "I cannot."})

    assert why_not(refused) == ("no_answer", "a message of 'assistant' has no text (the model refused)")


def test_texts_that_litellm_was_told_not_to_log_are_not_learned() -> None:
    hidden = with_output("litellm", message={"role": "assistant", "content": "redacted-by-litellm"})

    assert why_not(hidden)[0] == "not_kept"


def test_what_litellm_drops_from_the_request_is_found_in_the_response() -> None:
    (span,) = recorded("litellm_responses")
    assert "instructions" not in span["inputs"]

    assert why_not(with_output("litellm_responses", previous_response_id="resp_0"))[0] == "not_kept"
    assert chat([span])[0] == {"role": "system", "content": SYSTEM}


def test_of_several_calls_the_one_that_ended_well_and_last_counts() -> None:
    root = call({"question": "?"}, "shown to the user", type="UNKNOWN")
    asked = {"messages": [{"role": "user", "content": "A?"}]}
    calls = [
        call(asked, "first", root=False, end=10),
        call(asked, "last", root=False, end=30),
        call(asked, "slow and early", root=False, end=20),
        call(asked, None, root=False, end=40, ok=False),
        call({"input": ["text"]}, {"data": [[0.1]]}, root=False, end=50, type="EMBEDDING"),
    ]

    assert chat([root, *calls])[-1]["content"] == "last"
    assert chat([*reversed(calls), root])[-1]["content"] == "last"


def test_a_call_at_the_root_counts_before_what_it_calls_itself() -> None:
    asked = {"messages": [{"role": "user", "content": "A?"}]}

    assert chat([call(asked, "root"), call(asked, "below", root=False, end=9)])[-1]["content"] == "root"


def test_a_function_traced_by_hand_is_read_if_it_takes_messages() -> None:
    asked = {"messages": [{"role": "user", "content": "A?"}], "temperature": 0}

    assert chat([call(asked, "Yes", type="UNKNOWN")])[-1] == {"role": "assistant", "content": "Yes"}


def test_an_answer_that_looks_like_markup_is_an_answer() -> None:
    assert chat([call({"prompt": "A link?"}, "<a href='x'>x</a>")])[-1]["content"] == "<a href='x'>x</a>"


def test_a_trace_without_spans_is_told() -> None:
    assert why_not([])[0] == "not_kept"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["user", "assistant", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "type", "text", "choices", "message", "output", "input"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within a value, with each of its keys."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@given(st.sampled_from(sorted(file.stem for file in RECORDED.glob("*.json"))), st.data())
def test_whatever_stands_in_a_span_it_is_a_conversation_or_a_reason(name: str, data: st.DataObject) -> None:
    spans = copy.deepcopy(recorded(name))
    span = data.draw(st.sampled_from(spans))
    holder, key = data.draw(
        st.sampled_from([(span, "inputs"), (span, "outputs"), *places(span["inputs"]), *places(span["outputs"])])
    )
    holder[key] = data.draw(JSON)
    try:
        turns = chat(spans)
    except Bad as bad:
        assert bad.reason in REASONS
        assert len(bad.detail) < 200
    else:
        assert turns[-1]["role"] == "assistant"
        assert all(isinstance(turn["content"], str) for turn in turns)


@pytest.mark.parametrize(
    ("logged", "wanted"),
    [
        (True, True), (True, "true"), (False, "False"), ("yes", "Yes"), ("true", True),
        (5, 5), (5, "5"), (5.0, "5"), ("5", 5), (4, ">=4"), (4.5, ">4"), (0, "<=0"), (0.1, "< 0.5"),
    ],
)  # fmt: skip
def test_a_logged_value_satisfies_the_same_value_however_it_is_written(logged: object, wanted: object) -> None:
    assert satisfies(logged, wanted)


@pytest.mark.parametrize(
    ("logged", "wanted"),
    [
        (False, True), (False, "true"), (1, True), (True, 1), (True, "1"), ("yes", True), ("no", "yes"), ("", "yes"),
        (4, 5), (3.9, ">=4"), (4, ">4"), (True, ">=1"), ("many", ">=1"), (None, "None"), (None, True),
        ([True], True), ({"a": True}, "true"),
    ],
)  # fmt: skip
def test_a_logged_value_satisfies_no_other(logged: object, wanted: object) -> None:
    assert not satisfies(logged, wanted)
