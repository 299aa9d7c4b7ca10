"""The part of the OpenAI chat API that the endpoint speaks: what is read, checked and answered.

Errors have OpenAI's shape, so that its clients show them: `{"error": {"message", "type", "param", "code"}}`.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

MAX_BODY_BYTES = 1_000_000
MAX_ANSWERS = 8
"""Answers to one request (`n`)."""

Stops = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]


class TextPart(BaseModel):
    """A piece of a message's content; pieces of other types are refused."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class ChatRequest(BaseModel):
    """`POST /v1/chat/completions`. Fields of the API that are not here are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")
    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] = 1
    stop: Annotated[str, Field(min_length=1)] | Stops | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("top_logprobs", "top_logprobs is only for logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "stream_options is only for stream: true")
        return self


NAMES = {name for kind in (ChatRequest, ChatMessage, TextPart, StreamOptions) for name in kind.model_fields}
"""What a request's fields are called: pydantic puts the alternatives of a type between them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered with an error: status, message, the parameter at fault, OpenAI's code.

    `retry_after_s` says when to ask again, in whole seconds.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` where it is known, and what a 401 must say of how to do better."""
        found = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        return {**found, "www-authenticate": "Bearer"} if self.status == 401 else found

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def read(body: bytes) -> ChatRequest | Refusal:
    """A request, or why it is none."""
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = [part for n, part in enumerate(first["loc"]) if not n or isinstance(part, int) or part in NAMES]
        where = ".".join(map(str, place))
        if first["type"] in ChatRequest.model_fields:  # of fields that do not go together
            return Refusal(400, f"{first['type']}: {first['msg']}", param=first["type"])
        return Refusal(400, f"{where or 'body'}: {first['msg']}", param=where or None)
    return request


@dataclass(frozen=True, slots=True)
class Delta:
    """What came of answer `index`: some text, the tokens that came with it, or why the answer ended.

    `tokens` are told where log-probabilities were asked for; `written` counts them always.
    """

    index: int
    text: str
    tokens: tuple[dict[str, Any], ...] = ()
    finish: str | None = None
    written: int = 1

    def __add__(self, then: "Delta") -> "Delta":
        """This, and what came after it of the same answer."""
        tokens, written = self.tokens + then.tokens, self.written + then.written
        return Delta(self.index, self.text + then.text, tokens, then.finish, written)


class Together:
    """Pieces that come within a moment as one: on a GPU a token takes less time than a message through Ray.

    The first piece goes at once, and an answer's last with all that is held; no timer runs: what is held goes with
    the first token after the moment.

    Args:
        moment_s: seconds between two messages.
        clock: seconds that never go back.
    """

    def __init__(self, moment_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._moment_s = moment_s
        self._clock = clock
        self._sent = -moment_s
        self._held: dict[int, Delta] = {}

    def take(self, delta: Delta) -> list[Delta]:
        """What is to go now, by answer."""
        held, now = self._held.get(delta.index), self._clock()
        self._held[delta.index] = held + delta if held else delta
        if delta.finish is None and now - self._sent < self._moment_s:
            return []
        ready, self._held, self._sent = list(self._held.values()), {}, now
        return ready


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request: the prompt's, and those of all answers (the end token counts).

    `first_s` and `seconds` say when the first token came and the last, since the replica got the request.
    """

    prompt_tokens: int
    completion_tokens: int
    first_s: float = 0.0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Tokens that were read and written."""
        return self.prompt_tokens + self.completion_tokens

    def body(self) -> dict[str, int]:
        """OpenAI's usage object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total,
        }


def completion(model: str, deltas: Sequence[Delta], usage: Usage, *, logprobs: bool = False) -> dict[str, Any]:
    """A whole answer: the deltas of a stream, laid together."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": "".join(d.text for d in own), "refusal": None},
            "finish_reason": next(d.finish for d in own if d.finish),
            "logprobs": _logprobs([token for d in own for token in d.tokens]) if logprobs else None,
        }
        for index in sorted({delta.index for delta in deltas})
        for own in [[delta for delta in deltas if delta.index == index]]
    ]
    return {**_head(model, "chat.completion"), "choices": choices, "usage": usage.body()}


class Chunks:
    """The server-sent events of one streamed request; all carry the same id.

    Args:
        model: as it was asked for.
        logprobs: whether they were.
        usage: whether the usage was asked for: then the last event has it, and all others have null.
    """

    def __init__(self, model: str, *, logprobs: bool = False, usage: bool = False) -> None:
        self._head = _head(model, "chat.completion.chunk")
        self._logprobs = logprobs
        self._usage = usage
        self._begun: set[int] = set()

    @property
    def id(self) -> str:
        """The answer's id, in every event."""
        return str(self._head["id"])

    def event(self, delta: Delta) -> str:
        """Some text, or why an answer ended; the first of each answer says whose it is."""
        content: dict[str, Any] = {} if delta.index in self._begun else {"role": "assistant", "content": ""}
        self._begun.add(delta.index)
        if delta.text:
            content["content"] = delta.text
        choice = {
            "index": delta.index,
            "delta": content,
            "finish_reason": delta.finish,
            "logprobs": _logprobs(delta.tokens) if self._logprobs and delta.tokens else None,
        }
        return self._sent([choice], None)

    def end(self, usage: Usage) -> str:
        """The closing events."""
        return (self._sent([], usage.body()) if self._usage else "") + "data: [DONE]\n\n"

    def failed(self, refusal: Refusal) -> str:
        """What went wrong after the 200, as OpenAI's clients read it, and the end of the stream."""
        return f"data: {json.dumps(refusal.body())}\n\ndata: [DONE]\n\n"

    def _sent(self, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> str:
        body = {**self._head, "choices": choices, **({"usage": usage} if self._usage else {})}
        # ASCII: a client that splits lines as Unicode has them would cut an event at U+2028.
        return f"data: {json.dumps(body)}\n\n"


def _logprobs(tokens: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"content": list(tokens), "refusal": None}


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}
