"""The part of the OpenAI chat API that the endpoint speaks: what is read, checked and answered.

Errors have OpenAI's shape, so that its clients show them: `{"error": {"message", "type", "param", "code"}}`.
"""

import json
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_BODY_BYTES = 1_000_000


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "user", "assistant"]
    content: str


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
    n: Literal[1] = 1
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered with an error: status, message, the parameter at fault, OpenAI's code."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def read(body: bytes, *, model: str) -> ChatRequest | Refusal:
    """A request, or why it is none. `model` is the one that is served."""
    if len(body) > MAX_BODY_BYTES:
        return Refusal(413, f"the body has {len(body)} bytes, more than {MAX_BODY_BYTES}")
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Refusal(400, f"{where or 'body'}: {first['msg']}", param=where or None)
    if request.model != model:
        return Refusal(404, f"no model {request.model!r}; there is {model!r}", "model", "model_not_found")
    return request


def completion(model: str, text: str, finish: str, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """A whole answer."""
    return {
        **_head(model, "chat.completion"),
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, "logprobs": None}
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


class Chunks:
    """The server-sent events of one streamed answer; all carry the same id."""

    def __init__(self, model: str) -> None:
        self._head = _head(model, "chat.completion.chunk")

    def event(self, text: str, finish: str | None) -> str:
        """Some text, or why the answer ended, with the closing event."""
        delta = {} if finish else {"role": "assistant", "content": text}
        body = {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        # ASCII: a client that splits lines as Unicode has them would cut an event at U+2028.
        return f"data: {json.dumps(body)}\n\n" + ("data: [DONE]\n\n" if finish else "")


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}
