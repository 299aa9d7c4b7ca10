import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.serving.protocol import (
    ChatRequest,
    Chunks,
    Delta,
    Refusal,
    Together,
    Usage,
    completion,
    read,
)

MODEL = "closed_qa"
MESSAGES = [{"role": "user", "content": "Which town?"}]


def asked(**fields: Any) -> ChatRequest | Refusal:
    return read(json.dumps({"model": MODEL, "messages": MESSAGES, **fields}).encode())


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
        {"stream": True}, {"seed": 7}, {"user": "me"}, {"n": 1}, {"temperature": None}, {"n": 8}, {"stop": "."},
        {"stop": ["\n", "Q:"]}, {"stop": None}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 20},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
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
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
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


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_request_or_a_refusal_that_json_can_carry(body: bytes) -> None:
    found = read(body)

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


TOKEN = {"token": "Arn", "logprob": -0.5, "bytes": [65, 114, 110], "top_logprobs": []}


def test_a_whole_answer_has_openais_shape() -> None:
    answer = completion(MODEL, [Delta(0, "Ar"), Delta(0, "n", finish="stop")], Usage(12, 3))

    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Arn", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert answer["usage"] == {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    assert answer["id"] != completion(MODEL, [Delta(0, "", finish="stop")], Usage(12, 3))["id"]


def test_several_answers_are_told_apart_by_their_index() -> None:
    deltas = [Delta(1, "B"), Delta(0, "A"), Delta(1, "ern", (TOKEN,), "length"), Delta(0, "", (), "stop")]
    answer = completion(MODEL, deltas, Usage(12, 4), logprobs=True)

    assert [c["message"]["content"] for c in answer["choices"]] == ["A", "Bern"]
    assert [c["finish_reason"] for c in answer["choices"]] == ["stop", "length"]
    assert [c["logprobs"]["content"] for c in answer["choices"]] == [[], [TOKEN]]


def events(*deltas: Delta, **asked: bool) -> list[Any]:
    """What a client reads of a streamed answer: the events' JSON, line by line."""
    chunks = Chunks(MODEL, **asked)
    stream = "".join([*(chunks.event(delta) for delta in deltas), chunks.end(Usage(5, 2))])
    lines = [line for line in stream.splitlines() if line]  # as httpx splits, at every line end that Unicode knows
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def sent(steps: list[tuple[float, Delta]], moment_s: float = 0.04) -> list[tuple[float, Delta]]:
    """What goes out, and when, of pieces that come after some seconds each."""
    now = 0.0
    together = Together(moment_s, lambda: now)
    found = []
    for after, delta in steps:
        now += after
        found += [(round(now, 3), piece) for piece in together.take(delta)]
    return found


def test_pieces_that_come_within_a_moment_go_as_one_and_the_first_at_once() -> None:
    steps = [(0.01, Delta(0, text)) for text in ("In ", "the ", "town ", "of ", "Arn", ", ")]

    found = sent([*steps, (0.01, Delta(0, "Or", finish="stop"))])

    assert found == [
        (0.01, Delta(0, "In ")),
        (0.05, Delta(0, "the town of Arn", written=4)),
        (0.07, Delta(0, ", Or", finish="stop", written=2)),
    ]


def test_pieces_that_come_slowly_go_one_by_one() -> None:
    steps = [(0.05, Delta(0, "In ")), (0.05, Delta(0, "Arn", finish="stop"))]

    assert [piece for _, piece in sent(steps)] == [piece for _, piece in steps]


@given(st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 2), st.text(max_size=3)), max_size=40))
def test_nothing_is_lost_or_mixed_by_going_together(came: list[tuple[float, int, str]]) -> None:
    steps = [(after, Delta(index, text, ({"token": text},))) for after, index, text in came]
    ends = [(0.0, Delta(index, "", finish="stop")) for index in range(3)]

    found = [piece for _, piece in sent([*steps, *ends])]

    for index in range(3):
        own = [delta for _, delta in [*steps, *ends] if delta.index == index]
        got = [piece for piece in found if piece.index == index]
        assert "".join(piece.text for piece in got) == "".join(delta.text for delta in own)
        assert [token for piece in got for token in piece.tokens] == [token for d in own for token in d.tokens]
        assert sum(piece.written for piece in got) == len(own)
        assert [piece.finish for piece in got if piece.finish] == ["stop"] == [got[-1].finish]


def test_a_streamed_answer_is_pieces_of_one_id_and_an_end() -> None:
    found = events(Delta(0, "Ar"), Delta(0, "n"), Delta(0, "", finish="length"))

    assert [event["choices"][0]["delta"] for event in found] == [
        {"role": "assistant", "content": "Ar"},
        {"content": "n"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in found] == [None, None, "length"]
    assert {(event["object"], event["model"]) for event in found} == {("chat.completion.chunk", MODEL)}
    assert len({event["id"] for event in found}) == 1
    assert all("usage" not in event for event in found)
    assert Chunks(MODEL).event(Delta(0, "x")) != Chunks(MODEL).event(Delta(0, "x"))


def test_the_usage_closes_a_stream_that_asked_for_it() -> None:
    *pieces, last = events(Delta(0, "Arn"), Delta(0, "", finish="stop"), usage=True)

    assert [piece["usage"] for piece in pieces] == [None, None]
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_logprobs_come_with_their_piece() -> None:
    first, last = events(Delta(0, "Arn", (TOKEN,)), Delta(0, "", finish="stop"), logprobs=True)

    assert first["choices"][0]["logprobs"] == {"content": [TOKEN], "refusal": None}
    assert last["choices"][0]["logprobs"] is None


@given(st.lists(st.text(), max_size=4))
@example(["one\u2028two\x85three\x0b", "\r\n\n"])
def test_any_text_arrives_whole_however_a_client_splits_lines(texts: list[str]) -> None:
    found = events(*(Delta(0, text) for text in texts))

    assert [event["choices"][0]["delta"].get("content", "") for event in found] == texts


def test_what_fails_after_the_beginning_ends_the_stream_with_an_error() -> None:
    text = Chunks(MODEL).failed(Refusal(500, "gone"))

    assert json.loads(text.splitlines()[0].removeprefix("data: "))["error"]["message"] == "gone"
    assert text.endswith("data: [DONE]\n\n")
