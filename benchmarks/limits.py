"""The limits that the benchmarks' server enforces, stricter than most providers: within every second."""

import math
import time
from collections import deque
from typing import Protocol

BUCKET_SECONDS = 5.0
"""So many seconds' tokens may come at once."""


class Limit(Protocol):
    """What admission asks of a limit: all are asked before any is charged."""

    def wait(self, now: float) -> float:
        """Seconds until one more request has a place; 0 or less when it has one now."""

    def take(self, now: float) -> None:
        """Charge one request."""

    def headers(self, now: float) -> dict[str, str]:
        """The `x-ratelimit` headers."""


class RequestWindow:
    """At most rpm/60 requests, rounded down, in any trailing second; below 60 rpm, one in any 60/rpm seconds."""

    def __init__(self, rpm: float) -> None:
        self.limit = f"{rpm:g}"
        self.places = max(1, int(rpm / 60))
        self.seconds = max(1.0, 60 / rpm)
        self.times: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Seconds until the oldest of a full window leaves it."""
        while self.times and self.times[0] + self.seconds <= now:
            self.times.popleft()
        return self.times[0] + self.seconds - now if len(self.times) >= self.places else 0.0

    def take(self, now: float) -> None:
        """Note one accepted arrival."""
        self.times.append(now)

    def headers(self, now: float) -> dict[str, str]:
        """Remaining places are those of the window, not of the minute."""
        reset = self.times[-1] + self.seconds - now if self.times else 0.0
        return limit_headers("requests", self.limit, self.places - len(self.times), reset)


class TokenBucket:
    """Tokens a minute, of which five seconds' worth can be saved up."""

    def __init__(self, tpm: float, cost: int) -> None:
        self.limit = f"{tpm:g}"
        self.rate = tpm / 60
        self.capacity = self.rate * BUCKET_SECONDS
        self.cost = cost
        self.tokens = self.capacity
        self.at = time.monotonic()

    def wait(self, now: float) -> float:
        """Seconds until the bucket holds one reply's tokens."""
        self.tokens = min(self.capacity, self.tokens + (now - self.at) * self.rate)
        self.at = now
        return (self.cost - self.tokens) / self.rate

    def take(self, now: float) -> None:
        """Take one reply's tokens."""
        self.tokens -= self.cost

    def headers(self, now: float) -> dict[str, str]:
        """Remaining tokens are those of the bucket."""
        return limit_headers("tokens", self.limit, int(self.tokens), (self.capacity - self.tokens) / self.rate)


def limit_headers(what: str, limit: str, remaining: int, reset: float) -> dict[str, str]:
    milliseconds = math.ceil(max(reset, 0.0) * 1000)
    return {
        f"x-ratelimit-limit-{what}": limit,
        f"x-ratelimit-remaining-{what}": str(remaining),
        f"x-ratelimit-reset-{what}": f"{milliseconds}ms" if milliseconds < 1000 else f"{milliseconds / 1000:g}s",
    }
