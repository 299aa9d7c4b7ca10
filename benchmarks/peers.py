"""What people write instead: all requests at once through LiteLLM, retries included, and its router."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

MODEL = "openai/bench"
RETRIES = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many requests a peer got answered, how many it gave up, and in what time."""

    answered: int
    lost: int
    seconds: float


def gather(url: str, n: int) -> Outcome:
    """`asyncio.gather` over `litellm.acompletion` with `num_retries`.

    Args:
        url: Where the server's `/v1` is.
        n: How many requests to send, all at once.
    """
    litellm = _litellm()
    target = {"model": MODEL, "api_base": url, "api_key": "none", "num_retries": RETRIES, "max_retries": 0}
    return _timed(lambda: (litellm.acompletion(messages=_messages(i), **target) for i in range(n)))


def router(url: str, n: int, rpm: int) -> Outcome:
    """`asyncio.gather` over a `litellm.Router` of one deployment that is told the limit.

    Args:
        url: Where the server's `/v1` is.
        n: How many requests to send, all at once.
        rpm: The server's requests per minute.
    """
    deployment = {
        "model_name": "bench",
        "litellm_params": {"model": MODEL, "api_base": url, "api_key": "none", "max_retries": 0, "rpm": rpm},
    }
    balanced = _litellm().Router(model_list=[deployment], num_retries=RETRIES)
    return _timed(lambda: (balanced.acompletion(model="bench", messages=_messages(i)) for i in range(n)))


def _litellm() -> Any:
    # Imported here and not above: the variable must be set first, and the import is slow.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    return litellm


def _messages(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {i}"}]


def _timed(requests: Callable[[], Iterable[Coroutine[Any, Any, Any]]]) -> Outcome:
    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*requests(), return_exceptions=True)

    began = time.perf_counter()
    replies = asyncio.run(all_at_once())
    lost = sum(isinstance(reply, BaseException) for reply in replies)
    return Outcome(len(replies) - lost, lost, time.perf_counter() - began)
