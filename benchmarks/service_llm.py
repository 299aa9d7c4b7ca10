"""The service LLM client against what people write instead, and against what the machine allows.

    rate      Calls a minute against a server that allows so many (in every second, as providers do) and takes 0.3 to
              3 s a call: ours; `asyncio.gather` over LiteLLM with its retries; LiteLLM's Router, told the limit. The
              limit is the allowed rate. Ours also with the limit unknown, and configured twice too high.
    faults    Refusals, server errors, dropped connections, half replies and hangs: every request must end as a reply
              or a counted failure, and every dollar must be found again. The peer is gather on the same server.
    overhead  Time a call when the server takes none: ours (store on disk, dollars set aside) and bare LiteLLM with as
              many workers, in alternating blocks so that a busy moment hits both; bare aiohttp is the limit. The
              client also collects garbage more rarely, so LiteLLM is measured with that too. Memory: what a long
              stream of requests leaves behind.
    store     Replies a second that were there before: through the client, and the store's `get` alone. The limits are
              a Python dict after the same computation of keys, and a bare SQLite query on the same file.
    budget    Random prices, caps, usage, concurrency and faults: no run may pass its cap. The peer is LiteLLM's
              `max_budget`.

Every contender has a process of its own, and the server too. A wrong result (a lost request, a passed cap) ends the
benchmark; a slow one is only reported.

    python -m benchmarks.service_llm [rate] [faults] [overhead] [store] [budget] [--quick]
"""

import argparse
import asyncio
import gc
import itertools
import math
import random
import resource
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

import aiohttp
import psutil

from benchmarks import peers
from benchmarks.openai_server import running
from benchmarks.row import COLUMNS, Row, shown, table_line
from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.service_llm.client import Budget, Purpose, Reply, ReplyStore, Request, ServiceLLM
from mlflow_llamaduo.service_llm.flow import relaxed_gc

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rate_s: int
    """Calls of the rate part, in seconds at the allowed rate."""
    faulty: int
    hang_s: float
    blocks: int
    block: int
    bare_http: int
    stream: int
    entries: tuple[int, ...]
    hits: int
    budgets: int
    served_budgets: int


FULL = Sizes(60, 2_000, 60.0, 20, 1_000, 4_000, 20_000, (10_000, 1_000_000), 50_000, 200, 20)
QUICK = Sizes(5, 300, 8.0, 6, 300, 800, 2_000, (10_000, 50_000), 10_000, 40, 4)
RATES = (600, 6_000)
LATENCY_S = (0.3, 3.0)
PLACES_S = 4.0
"""Concurrency of ours in the rate part, in seconds of calls at the allowed rate: more than the longest latency."""
STEADY = (0.2, 0.8)
"""From the second in which so much of the replies was in to the second with so much: neither start nor end."""
FAULTS = {"fault_429": 0.05, "fault_500": 0.03, "fault_drop": 0.02, "fault_half": 0.02, "fault_hang": 0.01}
TIMEOUT_S = 5.0
"""Of ours in the faults part: shorter than a hang. LiteLLM waits for the server to close the connection."""
CONCURRENCY = 64
MAX_TOKENS = 100
FIRST = 1_000
"""Requests after which the memory of a stream is taken first; its growth is from there."""
WARM = 200
TEXT = "x" * 500
FILE = "replies.sqlite"
NOBODY = "http://127.0.0.1:9/v1"
"""Where no server is: for what must not, or does not, call one."""


class WrongResultError(RuntimeError):
    """The client did something wrong; no figure is worth anything then."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How a contender got through a limited server, in per cent; `steady` and `whole` of the allowed rate."""

    steady: float
    whole: float
    refused: float
    lost: float
    seconds: float


# Rate


def rate(sizes: Sizes) -> Iterator[Row]:
    """At 600 and 6,000 requests a minute, one contender after the other, each on a new server."""
    _print("rate", "steady", "whole run", "answered 429", "lost", "time")
    for rpm in RATES:
        ours, gather, router = (
            _passage(name, peer, rpm, sizes)
            for name, peer in (("ours", _ours), ("gather", _gather), ("Router", peers.router))
        )
        what = f"{rpm:,} requests a minute"
        for name, peer in (("LiteLLM gather", gather), ("LiteLLM Router", router)):
            yield Row(f"{what}: share of it in steady state", ours.steady, "%", name, peer.steady, "allowed", 100)
            yield Row(f"{what}: calls answered 429", ours.refused, "%", name, peer.refused, "none", 0)
            yield Row(f"{what}: requests lost", ours.lost, "%", name, peer.lost, "none", 0)
    for name, contender in (("limit unknown", _ours_untold), ("limit configured twice too high", _ours_misled)):
        ours = _passage(f"ours, {name}", contender, RATES[0], sizes)
        what = f"{RATES[0]} requests a minute, {name}"
        yield Row(f"{what}: share of it in steady state", ours.steady, "%", limit="allowed", limit_figure=100)
        yield Row(f"{what}: calls answered 429", ours.refused, "%", limit="none", limit_figure=0)


def _passage(name: str, contender: Callable[[str, int, int], peers.Outcome], rpm: int, sizes: Sizes) -> Passage:
    requests = sizes.rate_s * rpm // 60
    with running(rpm=rpm, latency=LATENCY_S) as server:
        outcome = _fresh(contender, server.url, requests, rpm)
        stats = server.stats()
    passage = Passage(
        100 * _steady(stats["ok_per_second"]) / (rpm / 60),
        100 * stats["ok"] / outcome.seconds / (rpm / 60),
        100 * stats["refused_429"] / max(1, stats["total"]),
        100 * outcome.lost / requests,
        outcome.seconds,
    )
    shares = (passage.steady, passage.whole, passage.refused, passage.lost)
    _print(f"{name}, {rpm:,} a minute", *(shown(share, "%") for share in shares), shown(passage.seconds, "s"))
    return passage


def _steady(per_second: Sequence[int]) -> float:
    """Replies a second, averaged over the seconds of the steady state."""
    sums = list(itertools.accumulate(per_second))
    if not sums:
        return 0.0
    first, last = (next(i for i, total in enumerate(sums) if total >= share * sums[-1]) for share in STEADY)
    return (sums[last] - sums[first]) / (last - first) if last > first else float(per_second[first])


def _ours(url: str, requests: int, rpm: int, told: int | None = 1) -> peers.Outcome:
    places = max(CONCURRENCY, int(PLACES_S * rpm / 60))
    with _client(url, rpm=told and told * rpm, concurrency=places) as llm:
        return _asked(llm, 0, requests)


def _ours_untold(url: str, requests: int, rpm: int) -> peers.Outcome:
    return _ours(url, requests, rpm, None)


def _ours_misled(url: str, requests: int, rpm: int) -> peers.Outcome:
    return _ours(url, requests, rpm, 2)


def _gather(url: str, requests: int, _: int = 0) -> peers.Outcome:
    return peers.gather(url, requests)


# Faults


def faults(sizes: Sizes) -> Iterator[Row]:
    """Ours and gather, each on a new server that breaks in every way."""
    _print("faults", "answered", "lost", "paid twice", "time", "in the store", "dollars lost")
    options = {**FAULTS, "hang": sizes.hang_s, "latency": (0.02, 0.2)}
    with running(**options) as server:
        ours, kept, lost_usd = _fresh(_survived, server.url, sizes.faulty)
        twice = server.stats()["paid_twice"]
    _print(
        "ours", *map(str, (ours.answered, ours.lost, twice)), shown(ours.seconds, "s"), f"{kept}", f"{lost_usd:.4f}"
    )
    _must(kept == ours.answered, f"{ours.answered} replies were handed out and {kept} are in the store")
    _must(not twice, f"{twice} requests were answered twice")
    with running(**options) as server:
        peer = _fresh(_gather, server.url, sizes.faulty)
        peer_twice = server.stats()["paid_twice"]
    _print("gather", *map(str, (peer.answered, peer.lost, peer_twice)), shown(peer.seconds, "s"), "-", "-")
    what = f"{sizes.faulty:,} requests, 13 % faults"
    yield Row(f"{what}: lost", ours.lost, "requests", "LiteLLM gather", peer.lost, "none", 0)
    yield Row(f"{what}: paid twice", twice, "requests", "LiteLLM gather", peer_twice, "none", 0)
    yield Row(f"{what}: time", ours.seconds, "s", "LiteLLM gather", peer.seconds)


def _survived(url: str, requests: int) -> tuple[peers.Outcome, int, float]:
    """The outcome, replies in the store, and dollars without a reply; all sums must agree."""
    began = time.perf_counter()
    with TemporaryDirectory() as folder, _client(url, file=Path(folder) / FILE, timeout_s=TIMEOUT_S) as llm:
        answers = sorted(llm.complete_many(map(_request, range(requests))), key=lambda answer: answer[0])
        seconds = time.perf_counter() - began
        _must([i for i, _ in answers] == list(range(requests)), f"{requests} requests got {len(answers)} answers")
        replies = [answer for _, answer in answers if isinstance(answer, Reply)]
        outcome = peers.Outcome(len(replies), requests - len(replies), seconds)
        _must((llm.meter.replies, llm.meter.failed) == (outcome.answered, outcome.lost), "the meter counted others")
        lost_usd = llm.spent_usd - sum(reply.usd for reply in replies)
        _must(math.isclose(lost_usd, _losses(Path(folder) / FILE), abs_tol=1e-9), "spent is not replies and losses")
        _must(math.isclose(llm.spent_usd, llm.meter.usd, rel_tol=1e-9), "store and meter disagree on what was spent")
        _must(not llm.store.held(), "dollars are still set aside for calls that have ended")
        return outcome, llm.store.count(llm.purpose.run), lost_usd


def _losses(file: Path) -> float:
    with closing(sqlite3.connect(file)) as kept:
        return float(kept.execute("SELECT COALESCE(SUM(usd), 0) FROM losses").fetchone()[0])


# Overhead


def overhead(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds a call against a server that takes no time, and the memory of a long stream."""
    _print("overhead, ms a call", "wall", "CPU", "best block", "worst block", "ours over it")
    with running() as server:
        costs = _fresh(_blocks, server.url, sizes)
        bare_http = _fresh(_bare_http_ms, server.url, sizes.bare_http)
    ours = costs["ours"]
    for name, cost in costs.items():
        over = median(own / peer for (own, _), (peer, _) in zip(ours, cost, strict=False))
        walls = _median(cost), _median(cost, 1), min(cost)[0], max(cost)[0]
        _print(name, *(f"{milliseconds:.2f}" for milliseconds in walls), f"{over:.2f}")
    _print("aiohttp", f"{bare_http:.2f}", "-", "-", "-", "-")
    for name, peer in ((BARE, costs[BARE]), (RELAXED, costs[RELAXED])):
        beside = _median(ours[: len(peer)])
        yield Row("a call that takes no time", beside, "ms", name, _median(peer), "bare aiohttp", bare_http)
    with running() as server:
        first, last = _fresh(_memory, server.url, sizes.stream)
    _print("memory", f"{first:.0f} MB after {FIRST:,} requests", f"{last:.0f} MB after {sizes.stream:,}")
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

    with _client(url) as llm:
        kinds = {"ours": lambda first, n: _asked(llm, first, n), BARE: bare, RELAXED: bare_relaxed}
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
                messages=_messages(i),
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
            body = {"model": "bench", "messages": _messages(i), "max_tokens": MAX_TOKENS}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                await response.json()

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def _memory(url: str, n: int) -> tuple[float, float]:
    """Megabytes of this process after the first replies of a stream, and after all."""
    process, taken = psutil.Process(), []
    with _client(url) as llm:
        for done, (_, answer) in enumerate(llm.complete_many(map(_request, range(n))), 1):
            _must(isinstance(answer, Reply), f"a request was lost: {answer}")
            if done in (FIRST, n):
                taken.append(process.memory_info().rss / 1e6)
    return taken[0], taken[-1]


# Store


def store(sizes: Sizes) -> Iterator[Row]:
    """Hits a second, in random order, in a small store and in a large one."""
    _print("store, hits a second", "client", "dict and key", "get", "bare SQLite", "fill")
    for entries in sizes.entries:
        hits, fill_s = _fresh(_hits, entries, min(entries, sizes.hits))
        _print(f"{entries:,} entries", *(f"{hit:,.0f}" for hit in hits), shown(fill_s, "s"))
        client, table, get, bare = hits
        unit, what = "a second", f"stored replies out of {entries:,}"
        yield Row(f"{what}, client", client, unit, limit="dict and key", limit_figure=table)
        yield Row(f"{what}, store alone", get, unit, limit="bare SQLite", limit_figure=bare)


def _hits(entries: int, asked: int) -> tuple[tuple[float, ...], float]:
    """Hits a second of client, dict, `get` and SQLite; and the seconds that it took to fill the store."""
    with TemporaryDirectory() as folder, _client(NOBODY, file=(file := Path(folder) / FILE)) as llm:
        began = time.perf_counter()
        keys = _filled(llm, file, entries)
        seconds = time.perf_counter() - began
        chosen = random.Random(0).sample(range(entries), asked)  # noqa: S311
        requests = [_request(i) for i in chosen]
        table = dict.fromkeys(keys, TEXT)
        with closing(sqlite3.connect(file)) as bare:
            query = "SELECT text FROM replies WHERE key = ?"
            ways: tuple[Callable[[], int], ...] = (
                lambda: sum(isinstance(answer, Reply) for _, answer in llm.complete_many(requests)),
                lambda: sum(table[llm.key(request)] == TEXT for request in requests),
                lambda: sum(llm.store.get(keys[i]) is not None for i in chosen),
                lambda: sum(bare.execute(query, (keys[i],)).fetchone()[0] == TEXT for i in chosen),
            )
            hits = tuple(_a_second(way, asked) for way in ways)
        _must(llm.meter.calls == 0, "a stored reply was asked for again")
    return hits, seconds


def _a_second(way: Callable[[], int], asked: int) -> float:
    began = time.perf_counter()
    found = way()
    seconds = time.perf_counter() - began
    _must(found == asked, f"{asked - found} of {asked} stored replies were not found")
    return asked / seconds


def _filled(llm: ServiceLLM, file: Path, entries: int) -> list[str]:
    """Keys of so many replies that are now in the store, inserted in the order of keys, which is the fastest."""
    keys = [llm.key(_request(i)) for i in range(entries)]
    insert = f"INSERT INTO replies VALUES ({', '.join('?' * 11)})"  # noqa: S608 - a constant
    rest = (llm.purpose.run, llm.purpose.stage, llm.model, TEXT, 100, 20, 0.0, 0, time.time(), 1.0)
    with closing(sqlite3.connect(file)) as filling:
        ordered = sorted(keys)
        for first in range(0, entries, 50_000):
            rows = ((key, *rest) for key in ordered[first : first + 50_000])
            with filling:
                filling.executemany(insert, rows)
        filling.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return keys


# Budget


def budget(sizes: Sizes) -> Iterator[Row]:
    """Random runs, of which some ask a real server and the others a stand-in for LiteLLM that fails at times."""
    began = time.perf_counter()
    urls: list[str | None] = [None] * (sizes.budgets - sizes.served_budgets)
    with running(
        latency=(0, 0.05), prompt_tokens=300, completion_tokens=50, fault_500=0.03, fault_drop=0.03
    ) as cheap:
        with running(latency=(0, 0.05), prompt_tokens=10, completion_tokens=1) as cheaper:
            urls += itertools.islice(itertools.cycle((cheap.url, cheaper.url)), sizes.served_budgets)
            runs = _fresh(_budget_runs, urls)
    shares, ended = [share for share, _ in runs], sum(ended for _, ended in runs)
    with running(latency=(0, 0.05)) as server:
        peer = _fresh(_max_budget, server.url, 500)
    _print("budget", "runs", "ended by the budget", "largest share spent", "LiteLLM's max_budget", "time")
    seconds = time.perf_counter() - began
    _print(f"{len(runs)}", f"{ended}", shown(100 * max(shares), "%"), shown(100 * peer, "%"), shown(seconds, "s"))
    what = f"{len(runs)} random budgets, {ended} of them used up: largest share spent"
    yield Row(what, 100 * max(shares), "%", "LiteLLM's `max_budget`", 100 * peer, "the cap", 100)


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
    with _client(url or NOBODY, cap_usd=cap, **options) as llm:
        asked = (Request(({"role": "user", "content": f"{i} {'word ' * words}"},)) for i in range(requests))
        try:
            answered = sum(1 for _ in llm.complete_many(asked))
        except BudgetError:
            ended = True
        _must(ended or answered == requests, f"{answered} of {requests} requests have an answer")
        _must(llm.spent_usd <= cap * (1 + 1e-9), f"{llm.spent_usd} dollars were spent of {cap}")
        _must(not llm.store.held(), "dollars are still set aside for calls that have ended")
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
        calls = (litellm.acompletion(messages=_messages(i), **target) for i in range(n))
        return await asyncio.gather(*calls, return_exceptions=True)

    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    usd = sum(litellm.cost_per_token(model="openai/gpt-4o-mini", **usage))
    litellm.max_budget = cap = n * usd / 2
    answered = sum(not isinstance(reply, BaseException) for reply in asyncio.run(everything()))
    return float(usd * answered / cap)


# Of use to all


@contextmanager
def _client(url: str, *, cap_usd: float = 1_000.0, file: Path | None = None, **options: Any) -> Iterator[ServiceLLM]:
    """A client with a new store on disk and a price, so that dollars are set aside for every call."""
    model = {"model": peers.MODEL, "api_base": url, "concurrency": CONCURRENCY, "max_tokens": MAX_TOKENS}
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
    with TemporaryDirectory() as folder, closing(ReplyStore(file or Path(folder) / FILE)) as replies:
        llm = ServiceModel.model_validate({**model, **prices, **options})
        yield ServiceLLM(llm, store=replies, budget=Budget(cap_usd), purpose=Purpose("run", "bench"))


def _asked(llm: ServiceLLM, first: int, n: int) -> peers.Outcome:
    """Ask n requests; all of them must be answered."""
    began = time.perf_counter()
    answered = sum(
        isinstance(answer, Reply) for _, answer in llm.complete_many(map(_request, range(first, first + n)))
    )
    outcome = peers.Outcome(answered, n - answered, time.perf_counter() - began)
    _must(not outcome.lost, f"{outcome.lost} of {n} requests were lost")
    return outcome


def _request(i: int) -> Request:
    return Request(tuple(_messages(i)))


def _messages(i: int) -> list[dict[str, str]]:
    """A prompt as the stages write them: what to do, and a text of some length."""
    return [{"role": "system", "content": "s" * 600}, {"role": "user", "content": f"question {i} {'x' * 800}"}]


def _fresh(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of this module returns in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_allow_sockets) as process:
        return process.submit(function, *arguments).result()


def _allow_sockets() -> None:
    """As many as there may be: gather opens one for every request at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _must(right: bool, wrong: str) -> None:
    if not right:
        raise WrongResultError(wrong)


def _print(*cells: str) -> None:
    print(table_line(*cells), flush=True)


PARTS: Mapping[str, Callable[[Sizes], Iterator[Row]]] = {
    "rate": rate,
    "faults": faults,
    "overhead": overhead,
    "store": store,
    "budget": budget,
}


def measure(sizes: Sizes = FULL, parts: Sequence[str] = tuple(PARTS)) -> Iterator[Row]:
    """All rows of some parts; each part prints its own table as it goes."""
    for part in parts:
        yield from PARTS[part](sizes)
        print(flush=True)


def main() -> None:
    """Measure the parts that the command line names, or all."""
    parser = argparse.ArgumentParser(description="The service LLM client against its peers and limits.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, to see that all works: about three minutes; rates are not steady so soon",
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    rows = list(measure(QUICK if options.quick else FULL, options.parts or tuple(PARTS)))
    print("\n".join([table_line(*COLUMNS), table_line(*("---" for _ in COLUMNS)), *map(str, rows)]))


if __name__ == "__main__":
    main()
