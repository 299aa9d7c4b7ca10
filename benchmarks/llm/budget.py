"""Random budgets, none of which may be passed."""

import asyncio
import itertools
import math
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.llm.common import (
    NOBODY,
    Sizes,
    client,
    fresh,
    messages,
    must,
    tell,
)
from benchmarks.openai_server import running
from benchmarks.row import Bar, Row, shown
from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.service_llm.client import Request


def budget(sizes: Sizes) -> Iterator[Row]:
    """Random runs, of which some ask a real server and the others a stand-in for LiteLLM that fails at times."""
    began = time.perf_counter()
    urls: list[str | None] = [None] * (sizes.budgets - sizes.served_budgets)
    with running(
        latency=(0, 0.05), prompt_tokens=300, completion_tokens=50, fault_500=0.03, fault_drop=0.03
    ) as cheap:
        with running(latency=(0, 0.05), prompt_tokens=10, completion_tokens=1) as cheaper:
            urls += itertools.islice(itertools.cycle((cheap.url, cheaper.url)), sizes.served_budgets)
            runs = fresh(_budget_runs, urls)
    shares, ended = [share for share, _ in runs], sum(ended for _, ended in runs)
    with running(latency=(0, 0.05)) as server:
        peer = fresh(_max_budget, server.url, 500)
    tell("budget", "runs", "ended by the budget", "largest share spent", "LiteLLM's max_budget", "time")
    seconds = time.perf_counter() - began
    tell(f"{len(runs)}", f"{ended}", shown(100 * max(shares), "%"), shown(100 * peer, "%"), shown(seconds, "s"))
    what = f"{len(runs)} random budgets"
    yield Row(f"{what}: used up", ended, "runs")
    yield Row(
        f"{what}: largest share spent",
        100 * max(shares),
        "%",
        "LiteLLM's `max_budget`",
        100 * peer,
        "the cap",
        100,
        Bar(len(runs), 100 * min(shares), 100 * max(shares)),
    )


def _budget_runs(urls: Sequence[str | None]) -> list[tuple[float, bool]]:
    import litellm

    # LiteLLM's logging is bound to one event loop at a time: only the stand-in's runs can be in threads at once.
    served = [_budget_run(seed, url) for seed, url in enumerate(urls) if url]
    with patch.object(litellm, "acompletion", _completed), ThreadPoolExecutor(16) as pool:
        return served + list(pool.map(lambda seed: _budget_run(seed, None), range(urls.count(None))))


def _budget_run(seed: int, url: str | None) -> tuple[float, bool]:
    """Share of the cap that was spent, and whether the budget ended the run."""
    draw = random.Random(f"{seed} {url}")  # noqa: S311
    requests, words = draw.randint(5, 200), draw.randint(50, 1_000)
    most, price = draw.randint(50, 600), math.exp(draw.uniform(-3, 4))
    likely_usd = requests * price * (5 * words + most) / 1e6
    options: dict[str, Any] = {"concurrency": draw.randint(1, 100), "max_tokens": most, "retries": 0}
    options |= {"input_usd_per_mtok": price, "output_usd_per_mtok": price * draw.uniform(0, 5)}
    cap, ended, answered = likely_usd * draw.uniform(0.05, 1.5), False, 0
    with client(url or NOBODY, cap_usd=cap, **options) as llm:
        asked = (Request(({"role": "user", "content": f"{i} {'word ' * words}"},)) for i in range(requests))
        try:
            answered = sum(1 for _ in llm.complete_many(asked))
        except BudgetError:
            ended = True
        must(ended or answered == requests, f"{answered} of {requests} requests have an answer")
        must(llm.spent_usd <= cap * (1 + 1e-9), f"{llm.spent_usd} dollars were spent of {cap}")
        must(not llm.store.held(), "dollars are still set aside for calls that have ended")
        return llm.spent_usd / cap, ended


async def _completed(*, messages: list[dict[str, str]], max_tokens: int, **_: Any) -> Any:
    """In the place of LiteLLM: any usage that a provider may count, and at times a call that comes to nothing."""
    import litellm

    await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311
    if random.random() < 0.05:  # noqa: S311
        raise litellm.Timeout(message="no answer", model="bench", llm_provider="openai")
    read = random.randint(1, len(messages[0]["content"]) + 16)  # noqa: S311
    usage = SimpleNamespace(prompt_tokens=read, completion_tokens=random.randint(1, max_tokens))  # noqa: S311
    choice = SimpleNamespace(finish_reason="stop", message=SimpleNamespace(content="word"))
    return SimpleNamespace(usage=usage, choices=[choice])


def _max_budget(url: str, n: int) -> float:
    """Share of a cap, which is half of what all calls cost, that LiteLLM spends when it is told the cap."""
    import litellm

    async def everything() -> list[Any]:
        target = {"model": "openai/gpt-4o-mini", "api_base": url, "api_key": "none", "max_retries": 0}
        calls = (litellm.acompletion(messages=messages(i), **target) for i in range(n))
        return await asyncio.gather(*calls, return_exceptions=True)

    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    usd = sum(litellm.cost_per_token(model="openai/gpt-4o-mini", **usage))
    litellm.max_budget = cap = n * usd / 2
    answered = sum(not isinstance(reply, BaseException) for reply in asyncio.run(everything()))
    return float(usd * answered / cap)
