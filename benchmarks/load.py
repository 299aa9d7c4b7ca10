"""Many clients at once against an OpenAI chat endpoint, in one process: aiohttp costs least of the client's side."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import aiohttp

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it: answers' tokens, the seconds in all, and of each request the seconds to its first token."""

    tokens: int
    seconds: float
    first_s: tuple[float, ...]
    statuses: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Tokens of answers a second."""
        return self.tokens / self.seconds

    @property
    def first_ms(self) -> float:
        """The median time to the first token, in milliseconds."""
        return 1000 * median(self.first_s)


def load(url: str, bodies: Sequence[Body], at_once: int, *, stream: bool = True) -> Load:
    """Ask all bodies, `at_once` at a time, streamed or whole."""
    ask = _streamed if stream else _whole
    return asyncio.run(_load(bodies, at_once, lambda session, body: ask(session, url, body)))


async def _load(bodies: Sequence[Body], at_once: int, ask: Callable[[aiohttp.ClientSession, Body], Any]) -> Load:
    waiting, found = list(reversed(bodies)), []

    async def client(session: aiohttp.ClientSession) -> None:
        while waiting:
            found.append(await ask(session, waiting.pop()))

    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(at_once)))
        seconds = time.perf_counter() - began
    good = [one for one in found if one[0] == 200]
    return Load(sum(one[1] for one in good), seconds, tuple(one[2] for one in good), tuple(one[0] for one in found))


async def _streamed(session: aiohttp.ClientSession, url: str, body: Body) -> tuple[int, int, float]:
    """Status, tokens and seconds to the first token of one request."""
    began, first, tokens = time.perf_counter(), 0.0, 0
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with session.post(f"{url}/v1/chat/completions", json=asked) as response:
        if response.status != 200:
            await response.read()
            return response.status, 0, 0.0
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if not first and event["choices"] and event["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - began
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    return 200, tokens, first or time.perf_counter() - began


async def _whole(session: aiohttp.ClientSession, url: str, body: Body) -> tuple[int, int, float]:
    began = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        found = await response.json()
    tokens = found["usage"]["completion_tokens"] if response.status == 200 else 0
    return response.status, tokens, time.perf_counter() - began
