"""What the client adds to a call, and what a long stream leaves in memory."""

import asyncio
import gc
import time
from collections.abc import Iterator
from statistics import median

import aiohttp
import psutil

from benchmarks import peers
from benchmarks.llm.common import (
    CONCURRENCY,
    FIRST,
    MAX_TOKENS,
    WARM,
    Sizes,
    asked,
    client,
    fresh,
    messages,
    must,
    request,
    tell,
)
from benchmarks.openai_server import running
from benchmarks.row import Row, of_turns
from mlflow_llamaduo.service_llm.client import Reply
from mlflow_llamaduo.service_llm.flow import relaxed_gc


def overhead(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds a call against a server that takes no time, and the memory of a long stream."""
    tell("overhead, ms a call", "wall", "CPU", "best block", "worst block", "ours over it")
    with running() as server:
        costs = fresh(_blocks, server.url, sizes)
        bare_http = fresh(_bare_http_ms, server.url, sizes.bare_http)
    ours = costs["ours"]
    for name, cost in costs.items():
        over = median(own / peer for (own, _), (peer, _) in zip(ours, cost, strict=False))
        walls = _median(cost), _median(cost, 1), min(cost)[0], max(cost)[0]
        tell(name, *(f"{milliseconds:.2f}" for milliseconds in walls), f"{over:.2f}")
    tell("aiohttp", f"{bare_http:.2f}", "-", "-", "-", "-")
    for name, peer in ((BARE, costs[BARE]), (RELAXED, costs[RELAXED])):
        mine, theirs = ([block[0] for block in cost] for cost in (ours[: len(peer)], peer))
        yield of_turns("a call that takes no time", "ms", mine, (name, theirs), ("bare aiohttp", [bare_http]))
    with running() as server:
        first, last = fresh(_memory, server.url, sizes.stream)
    tell("memory", f"{first:.0f} MB after {FIRST:,} requests", f"{last:.0f} MB after {sizes.stream:,}")
    yield Row(f"memory after {sizes.stream:,} requests", last, "MB", limit=f"after {FIRST:,}", limit_figure=first)


BARE, RELAXED = "bare LiteLLM", "bare LiteLLM, garbage collected as rarely"
Cost = list[tuple[float, float]]
"""Milliseconds a call, wall and CPU, of every block."""


def _median(cost: Cost, which: int = 0) -> float:
    return median(block[which] for block in cost)


def _blocks(url: str, sizes: Sizes) -> dict[str, Cost]:
    def bare(first: int, n: int) -> None:
        asyncio.run(_workers(url, first, n))

    def bare_relaxed(first: int, n: int) -> None:
        with relaxed_gc():
            bare(first, n)

    with client(url) as llm:
        kinds = {"ours": lambda first, n: asked(llm, first, n), BARE: bare, RELAXED: bare_relaxed}
        costs: dict[str, Cost] = {name: [] for name in kinds}
        for ask in kinds.values():
            ask(0, WARM)
        for block in range(sizes.blocks):
            if block == sizes.blocks // 4 + 1:
                del kinds[RELAXED]  # to know it roughly is enough
            for name, ask in list(kinds.items())[:: 1 if block % 2 else -1]:  # now one goes first, now another
                gc.collect()
                began, cpu = time.perf_counter(), time.process_time()
                ask(WARM + block * sizes.block, sizes.block)
                spent = time.perf_counter() - began, time.process_time() - cpu
                costs[name].append((1e3 * spent[0] / sizes.block, 1e3 * spent[1] / sizes.block))
    return costs


async def _workers(url: str, first: int, n: int) -> None:
    import litellm

    numbers = iter(range(first, first + n))

    async def work() -> None:
        for i in numbers:
            await litellm.acompletion(
                model=peers.MODEL,
                messages=messages(i),
                api_base=url,
                api_key="none",
                timeout=120,
                num_retries=0,
                max_retries=0,
                max_tokens=MAX_TOKENS,
            )

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def _bare_http_ms(url: str, n: int) -> float:
    async def everything() -> float:
        async with aiohttp.ClientSession() as session:
            await _posts(session, url, WARM)
            began = time.perf_counter()
            await _posts(session, url, n)
            return 1e3 * (time.perf_counter() - began) / n

    return asyncio.run(everything())


async def _posts(session: aiohttp.ClientSession, url: str, n: int) -> None:
    numbers = iter(range(n))

    async def work() -> None:
        for i in numbers:
            body = {"model": "bench", "messages": messages(i), "max_tokens": MAX_TOKENS}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                await response.json()

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def _memory(url: str, n: int) -> tuple[float, float]:
    """Megabytes of this process after the first replies of a stream, and after all."""
    process, taken = psutil.Process(), []
    with client(url) as llm:
        for done, (_, answer) in enumerate(llm.complete_many(map(request, range(n))), 1):
            must(isinstance(answer, Reply), f"a request was lost: {answer}")
            if done in (FIRST, n):
                taken.append(process.memory_info().rss / 1e6)
    return taken[0], taken[-1]
