"""A local OpenAI-compatible chat server with limits, latency and faults, for load tests: `running(rpm=600)`.

It is a process of its own, so that the client under test shares no event loop and no interpreter lock with it.
"""

import argparse
import asyncio
import itertools
import json
import math
import random
import resource
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.limits import BUCKET_SECONDS, Limit, RequestWindow, TokenBucket

HOST = "127.0.0.1"
MODEL = "bench"
FAULTS = ("fault_429", "fault_500", "drop", "half", "hang")
OUTCOMES = ("ok", "refused_429", *FAULTS, "abandoned", "bad_request")
FAULT_429_SECONDS = 0.2
JSON = {"Content-Type": "application/json"}
# A proxy of the environment must not stand between a benchmark and its own machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, as its client sees it."""

    url: str

    def stats(self) -> dict[str, Any]:
        """What the server has counted since its start or the last `reset`."""
        with _OPENER.open(self._address("stats"), timeout=30) as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def reset(self) -> None:
        """Start the counters anew; limits, faults and requests under way go on."""
        with _OPENER.open(self._address("reset"), data=b"", timeout=30) as reply:
            reply.read()

    def _address(self, name: str) -> str:
        return f"{self.url.removesuffix('/v1')}/{name}"


@contextmanager
def running(**options: Any) -> Iterator[Server]:
    """A server process for the length of a `with` block.

    Args:
        **options: The options of the command line, with underscores: `rpm=600, latency=(0.3, 3.0), fault_429=0.05`.
    """
    command = [sys.executable, "-m", "benchmarks.openai_server"]
    for name, value in options.items():
        values = value if isinstance(value, list | tuple) else [value]
        command += [f"--{name.replace('_', '-')}", *map(str, values)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    try:
        yield Server(f"http://{HOST}:{_port(process)}/v1")
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _port(process: subprocess.Popen[str]) -> int:
    line = process.stdout.readline() if process.stdout else ""
    name, _, port = line.partition(" ")
    if name != "port":
        raise RuntimeError(f"The benchmark server did not start (it printed {line!r}): see its error above.")
    return int(port)


@dataclass(slots=True)
class Stats:
    """The counters; a reset replaces them, and requests under way report to those they began with."""

    open: int = 0
    max_open: int = 0
    began: float | None = None
    first_ok: float | None = None
    last_ok: float | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    arrivals: Counter[int] = field(default_factory=Counter)
    replies: Counter[int] = field(default_factory=Counter)
    paid: Counter[int] = field(default_factory=Counter)

    def arrived(self, now: float) -> None:
        """Note a request."""
        if self.began is None:
            self.began = now
        self.arrivals[int(now - self.began)] += 1
        self.open += 1
        self.max_open = max(self.max_open, self.open)

    def answered(self, request: int) -> None:
        """Note a full reply to the request with this hash."""
        now = time.monotonic()
        if self.first_ok is None:
            self.first_ok = now
        self.last_ok = now
        self.outcomes["ok"] += 1
        self.replies[int(now - (self.began or now))] += 1
        self.paid[request] += 1

    def as_json(self) -> dict[str, Any]:
        """What `GET /stats` answers."""
        return {
            **{name: self.outcomes[name] for name in OUTCOMES},
            "total": self.arrivals.total(),
            "first_ok": self.first_ok,
            "last_ok": self.last_ok,
            "ok_per_second": _per_second(self.replies),
            "arrivals_per_second": _per_second(self.arrivals),
            "paid_twice": sum(times > 1 for times in self.paid.values()),
            "max_open": self.max_open,
            "distinct_ok": len(self.paid),
        }


def _per_second(counts: Counter[int]) -> list[int]:
    return [counts[second] for second in range(max(counts, default=-1) + 1)]


class Chat:
    """The handler of all requests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.random = random.Random(options.seed)  # noqa: S311
        self.latency: tuple[float, float] = tuple(options.latency)
        self.hang: float = options.hang
        shares = (options.fault_429, options.fault_500, options.fault_drop, options.fault_half, options.fault_hang)
        self.faults = list(zip(itertools.accumulate(shares), FAULTS, strict=True))
        self.limits: list[Limit] = []
        if options.rpm:
            self.limits.append(RequestWindow(options.rpm))
        if options.tpm:
            self.limits.append(TokenBucket(options.tpm, options.prompt_tokens + options.completion_tokens))
        self.reply = _reply_template(options.prompt_tokens, options.completion_tokens)
        self.numbers = itertools.count(1)
        self.stats = Stats()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Route by hand: a router with its resources and middlewares would cost more than the rest of a request."""
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                return await self._counted(request)
            case "GET", "/v1/models":
                model = {"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}
                return web.json_response({"object": "list", "data": [model]})
            case "GET", "/stats":
                return web.json_response(self.stats.as_json())
            case "POST", "/reset":
                self.stats = Stats()
                return web.json_response({})
        return _error(404, "invalid_request_error", "No such endpoint.", {})

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        stats = self.stats
        body = await request.read()
        now = time.monotonic()
        stats.arrived(now)
        try:
            wait = max((limit.wait(now) for limit in self.limits), default=0.0)
            if wait > 0:
                stats.outcomes["refused_429"] += 1
                return _too_many(wait, self._headers(now))
            for limit in self.limits:
                limit.take(now)
            return await self._admitted(request, body, stats, self._headers(now))
        finally:
            stats.open -= 1

    def _headers(self, now: float) -> dict[str, str]:
        headers: dict[str, str] = {}
        for limit in self.limits:
            headers |= limit.headers(now)
        return headers

    async def _admitted(
        self, request: web.BaseRequest, body: bytes, stats: Stats, headers: dict[str, str]
    ) -> web.StreamResponse:
        # Both are drawn for every request, so that one option does not shift the draws of the other.
        drawn, seconds = self.random.random(), self.random.uniform(*self.latency)
        fault = next((name for share, name in self.faults if drawn < share), "")
        if fault:
            return await self._faulty(fault, seconds, request, stats, headers)
        try:
            key = hash(str(json.loads(body)["messages"]))
        except (ValueError, KeyError, TypeError):
            stats.outcomes["bad_request"] += 1
            return _error(400, "invalid_request_error", "The body is no JSON object with `messages`.", headers)
        if seconds:
            await asyncio.sleep(seconds)
        if request.transport is None or request.transport.is_closing():
            stats.outcomes["abandoned"] += 1
        else:
            stats.answered(key)
        return web.Response(body=self._next_reply(), headers=JSON | headers)

    async def _faulty(
        self, fault: str, seconds: float, request: web.BaseRequest, stats: Stats, headers: dict[str, str]
    ) -> web.StreamResponse:
        stats.outcomes[fault] += 1
        if fault == "fault_429":
            return _too_many(FAULT_429_SECONDS, headers)
        await asyncio.sleep(self.hang if fault == "hang" else seconds)
        if fault == "fault_500":
            return _error(500, "server_error", "The server had an error while processing your request.", headers)
        response: web.StreamResponse = web.Response()
        if fault == "half" and request.transport is not None:
            response = await self._half(request, headers)
        if request.transport is not None:
            request.transport.close()
        return response

    async def _half(self, request: web.BaseRequest, headers: dict[str, str]) -> web.StreamResponse:
        body = self._next_reply()
        response = web.StreamResponse(headers=JSON | headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        return response

    def _next_reply(self) -> bytes:
        number = next(self.numbers)
        return self.reply % (number, number)


def _reply_template(prompt_tokens: int, completion_tokens: int) -> bytes:
    message = {"role": "assistant", "content": '{"n": %d}', "refusal": None}
    reply = {
        "id": "chatcmpl-%d",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }
    return json.dumps(reply).encode()


def _too_many(wait: float, headers: dict[str, str]) -> web.Response:
    retry = {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
    return _error(429, "rate_limit_exceeded", "Rate limit reached. Please try again later.", headers | retry)


def _error(status: int, code: str, message: str, headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=_error_body(code, message), headers=JSON | headers)


@cache
def _error_body(code: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()


async def _serve(chat: Chat, port: int) -> None:
    runner = web.ServerRunner(web.Server(chat.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=4096).start()
    print(f"port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--rpm", type=float, default=0.0, help="requests a minute, held in every second; 0: no limit")
    parser.add_argument("--tpm", type=float, default=0.0, help="tokens a minute; 0: no limit")
    parser.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0), metavar=("FROM", "TO"))
    for fault in ("429", "500", "drop", "half", "hang"):
        parser.add_argument(f"--fault-{fault}", type=float, default=0.0, help="share of the admitted requests")
    parser.add_argument("--hang", type=float, default=60.0, help="seconds until a hanging request is closed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt-tokens", type=int, default=100)
    parser.add_argument("--completion-tokens", type=int, default=20)
    options = parser.parse_args()
    if 0 < options.tpm / 60 * BUCKET_SECONDS < options.prompt_tokens + options.completion_tokens:
        parser.error("--tpm: five seconds of it must hold one reply's tokens, or no request is ever admitted.")
    return options


def main() -> None:
    """Serve until terminated."""
    options = _options()
    # Each waiting request of a burst is an open socket: the usual soft limit of 1024 is soon reached.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve(Chat(options), options.port))


if __name__ == "__main__":
    main()
