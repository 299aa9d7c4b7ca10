import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.serving.protocol import MAX_BODY_BYTES, ChatRequest, Chunks, Refusal, completion, read

MODEL = "closed_qa"
MESSAGES = [{"role": "user", "content": "Which town?"}]


def asked(**fields: Any) -> ChatRequest | Refusal:
    return read(json.dumps({"model": MODEL, "messages": MESSAGES, **fields}).encode(), model=MODEL)


def refused(**fields: Any) -> Refusal:
    found = asked(**fields)
    assert isinstance(found, Refusal)
    return found


def test_the_least_request_is_read_with_the_apis_defaults() -> None:
    request = asked()

    assert isinstance(request, ChatRequest)
    assert [(m.role, m.content) for m in request.messages] == [("user", "Which town?")]
    assert (request.stream, request.temperature, request.max_tokens, request.n) == (False, None, None, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0}, {"temperature": 2}, {"top_p": 1}, {"max_tokens": 1}, {"max_completion_tokens": 5},
        {"stream": True}, {"seed": 7}, {"user": "me"}, {"n": 1}, {"temperature": None},
        {"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": ""}, *MESSAGES]},
        {"messages": [{"role": "user", "content": "q", "name": "me"}]},
    ],
)  # fmt: skip
def test_what_the_endpoint_speaks_is_read(fields: dict[str, Any]) -> None:
    assert isinstance(asked(**fields), ChatRequest)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"stop": ["\n"]}, "stop"),
        ({"tools": []}, "tools"),
        ({"messages": []}, "messages"),
        ({"messages": "q"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    ],
)
def test_what_it_does_not_speak_is_refused_by_the_name_of_the_field(fields: dict[str, Any], param: str) -> None:
    found = refused(**fields)

    assert (found.status, found.param) == (400, param)
    assert found.message.startswith(f"{param}: ")


def test_another_model_is_not_found_and_the_one_that_is_served_is_named() -> None:
    found = refused(model="gpt-4o")

    assert (found.status, found.param, found.code) == (404, "model", "model_not_found")
    assert "'gpt-4o'" in found.message
    assert f"'{MODEL}'" in found.message


def test_a_body_that_is_too_long_is_refused_unread() -> None:
    fits = json.dumps({"model": MODEL, "messages": MESSAGES}).encode().ljust(MAX_BODY_BYTES)

    assert isinstance(read(fits, model=MODEL), ChatRequest)
    refusal = read(fits + b" ", model=MODEL)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 413


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_request_or_a_refusal_that_json_can_carry(body: bytes) -> None:
    found = read(body, model=MODEL)

    assert isinstance(found, Refusal)
    assert found.status == 400
    assert json.loads(json.dumps(found.body()).encode())["error"]["message"]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (404, "invalid_request_error"), (503, "server_error")]
)
def test_an_error_has_openais_shape(status: int, kind: str) -> None:
    assert Refusal(status, "no", param="model", code="c").body() == {
        "error": {"message": "no", "type": kind, "param": "model", "code": "c"}
    }


def test_a_whole_answer_has_openais_shape() -> None:
    answer = completion(MODEL, "Arn", "stop", 12, 3)

    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Arn"}
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert answer["usage"] == {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    assert answer["id"] != completion(MODEL, "Arn", "stop", 12, 3)["id"]


def events(*texts: str, finish: str = "stop") -> list[Any]:
    """What a client reads of a streamed answer: the events' JSON, line by line."""
    chunks = Chunks(MODEL)
    stream = "".join([*(chunks.event(text, None) for text in texts), chunks.event("", finish)])
    lines = [line for line in stream.splitlines() if line]  # as httpx splits, at every line end that Unicode knows
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_streamed_answer_is_pieces_of_one_id_and_an_end() -> None:
    found = events("Ar", "n", finish="length")

    assert [event["choices"][0]["delta"].get("content") for event in found] == ["Ar", "n", None]
    assert [event["choices"][0]["finish_reason"] for event in found] == [None, None, "length"]
    assert {(event["object"], event["model"]) for event in found} == {("chat.completion.chunk", MODEL)}
    assert len({event["id"] for event in found}) == 1
    assert Chunks(MODEL).event("x", None) != Chunks(MODEL).event("x", None)


@given(st.lists(st.text(), max_size=4))
@example(["one\u2028two\x85three\x0b", "\r\n\n"])
def test_any_text_arrives_whole_however_a_client_splits_lines(texts: list[str]) -> None:
    *pieces, _ = events(*texts)

    assert [event["choices"][0]["delta"]["content"] for event in pieces] == texts
