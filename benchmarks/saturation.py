"""Ten minutes of more requests than the endpoint takes, from clients that leave when they please.

What may be said no to is said with 429 or 503 and `Retry-After`; every stream that is listened to ends properly; and
what the service's processes hold at the end they held after the first minute. `LLAMADUO_BENCH_SECONDS` shortens it.
"""

import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.row import Row, of_count
from benchmarks.served import clear, ours, versions
from benchmarks.serving import bodies

SECONDS = float(os.environ.get("LLAMADUO_BENCH_SECONDS", "600"))
CLIENTS = 64
SIZES: dict[str, Any] = {"batch_size": 16, "waiting": 16, "adapters": 4}
LEAVES = 0.3
"""The share of the streams whose client leaves in the middle."""
ROLES = ("ServeReplica:llamaduo:Replica", "ServeReplica:llamaduo:Ingress", "ProxyActor")


@dataclass
class Seen:
    """What the clients have seen."""

    statuses: Counter[int] = field(default_factory=Counter)
    ended: int = 0
    left: int = 0
    broken: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)


def measure() -> Iterator[Row]:
    """Requests by what came of them, and memory in MB."""
    folder = Path(tempfile.mkdtemp(prefix="llamaduo-saturation-"))
    try:
        versions(folder, 4)
        with ours(folder, **SIZES) as own:
            seen = asyncio.run(_saturate(own.url, folder))
    finally:
        clear(folder)
    name = f"{SECONDS:g} s at saturation, {CLIENTS} clients, {100 * LEAVES:g} % of the streams left in the middle"
    answered, refused = seen.statuses[200], seen.statuses[503] + seen.statuses[429]
    yield Row(f"{name}: answered", answered, "requests")
    yield Row(f"{name}: told to come again, with Retry-After", refused, "requests")
    yield Row(f"{name}: left by their clients", seen.left, "requests")
    wrong, bar = len(seen.broken), of_count(len(seen.broken), seen.statuses.total() + len(seen.broken))
    yield Row(f"{name}: other errors, and streams that did not end", wrong, "requests", bar=bar)
    early = [used for at, used in seen.memory if SECONDS / 10 <= at <= SECONDS / 5]
    late = [used for at, used in seen.memory if at >= SECONDS * 0.9]
    if early and late:
        yield Row(f"{name}: memory at the end", max(late) / 1e6, "MB", "early on", max(early) / 1e6)
    for line in seen.broken[:5]:
        print(line)


async def _saturate(url: str, folder: Path) -> Seen:
    seen, until = Seen(), time.monotonic() + SECONDS
    asked = bodies(400, ["closed_qa", "closed_qa@2", "closed_qa@3", "closed_qa@4"])

    async def client(session: aiohttp.ClientSession, dice: random.Random) -> None:
        while time.monotonic() < until:
            body = {**dice.choice(asked), "stream": dice.random() < 0.7}
            try:
                await _one(session, url, body, dice, seen)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                seen.broken.append(f"{type(error).__name__}: {error}")

    async def watch() -> None:
        began = time.monotonic()
        while time.monotonic() < until:
            seen.memory.append((time.monotonic() - began, await asyncio.to_thread(_held, folder)))
            await asyncio.sleep(max(1.0, SECONDS / 60))

    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        dice = [random.Random(number) for number in range(CLIENTS)]  # noqa: S311 - no secret
        await asyncio.gather(watch(), *(client(session, one) for one in dice))
    return seen


async def _one(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], dice: random.Random, seen: Seen
) -> None:
    leaves = dice.randrange(1, 20) if body["stream"] and dice.random() < LEAVES else 0
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        seen.statuses[response.status] += 1
        if response.status in (429, 503):
            if not int(response.headers.get("retry-after", "0")):
                seen.broken.append(f"{response.status} without Retry-After")
            await asyncio.sleep(dice.random())
            return
        if response.status != 200:
            seen.broken.append(f"{response.status}: {(await response.text())[:200]}")
        elif not body["stream"]:
            seen.ended += bool((await response.json())["choices"][0]["finish_reason"])
        else:
            await _listen(response, leaves, seen)


async def _listen(response: aiohttp.ClientResponse, leaves: int, seen: Seen) -> None:
    events, finish, last = 0, False, b""
    async for line in response.content:
        if line.startswith(b"data: "):
            events, last = events + 1, line
            event = json.loads(line[6:]) if line.startswith(b"data: {") else {}
            finish = finish or any(choice["finish_reason"] for choice in event.get("choices", []))
        if leaves and events >= leaves:
            seen.left += 1
            response.close()
            return
    if finish and last == b"data: [DONE]\n":
        seen.ended += 1
    else:
        seen.broken.append(f"a stream ended with {last[:200]!r}")


def _held(folder: Path) -> int:
    """Bytes that the service's own processes hold."""
    total = 0
    for process in psutil.process_iter(["cmdline"]):
        try:
            named = " ".join(process.info["cmdline"] or ())
            if any(role in named for role in ROLES) and str(folder) in process.environ().get("LLAMADUO_HOME", ""):
                total += process.memory_info().rss
        except psutil.Error:
            continue
    return total
