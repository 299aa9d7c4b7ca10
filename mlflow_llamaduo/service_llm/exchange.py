"""What goes to a service LLM and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a service LLM; `repeat` tells apart the M judgings of the same response."""

    messages: tuple[Mapping[str, str], ...]
    schema: Mapping[str, Any] | None = None
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the service LLM answered; tokens as the provider counted them, dollars as paid; cut at max_tokens?

    `seconds` is how long the call took; 0 for a reply of a batch.
    """

    text: str
    input_tokens: int
    output_tokens: int
    usd: float
    cut: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no reply in the end; it is asked again in a rerun. Dollars may be gone all the same."""

    reason: str
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Purpose:
    """On whose behalf something is asked: dollars and traces are told apart by run and stage."""

    run: str
    stage: str


def most_tokens(request: Request) -> int:
    """No fewer tokens than the request has: a token is a byte at least, and every message has some of its own.

    A schema comes with words of the provider's: Claude's tool use adds about 350 tokens.
    """
    schema = len(str(request.schema)) + 400 if request.schema else 0
    return schema + sum(len(m["content"].encode("utf-8", "replace")) + 16 for m in request.messages)
