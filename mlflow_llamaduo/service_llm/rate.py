"""How fast a service LLM is asked: as fast as it allows, and no faster.

Providers count requests in buckets much smaller than a minute (600 a minute are enforced as 10 a second), so calls
are spaced evenly. After refusals the pace falls to what was let through, and comes back slowly: it does not hunt.
"""

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import takewhile

MARGIN = 0.975
"""Share of the allowed rate that is used: arrivals jitter, and one too many in a second is refused."""
CATCH_UP_S, IDLE_S = 0.2, 1.0
"""Calls that a busy moment held up may follow closer, so many seconds' worth of them; none after a longer idling."""
MEASURE_S = 5.0
"""Over how long the rate that gets through is measured."""
WINDOW_S, FEW, FEW_SHARE = 30.0, 3, 0.02
"""So few refusals in so many seconds are no reason to slow down: the call is sent again, that is all."""
START, FREE = 20.0, 1000.0
"""Calls a second at first while no limit is known, and from when on none is looked for any more."""
REMEMBER_S = 60.0
"""How long the best rate that got through is remembered: stray refusals do not talk the pace down below it."""
STRAY = 0.2
"""A smaller share of refusals may have other causes than the pace (another program on the same key, an overload)."""

LONGEST_S = 3600.0
"""No header makes us wait longer."""
SPAN = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the headers of an answer say: places left and seconds until all are free again; None if not said."""

    requests_left: float | None = None
    requests_reset_s: float | None = None
    requests_limit: float | None = None
    tokens_left: float | None = None
    tokens_reset_s: float | None = None
    tokens_limit: float | None = None
    retry_after_s: float | None = None


class Rate:
    """Requests and tokens a minute as a schedule; it knows the time and nothing of what is sent.

    Without `rpm` calls begin slowly and twice as fast every second, until the provider's headers or its first
    refusals show a limit. An infinite `rpm` is no limit at all.
    """

    def __init__(self, rpm: float | None, tpm: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        now = clock()
        self._clock = clock
        self._most = MARGIN * rpm / 60 if rpm else math.inf
        self._places = math.ceil(rpm / 60) if rpm and rpm < math.inf else 0
        self._tokens_a_second = MARGIN * tpm / 60 if tpm else math.inf
        self._pace = self._most if rpm else START
        self._next = self._next_token = self._paused = self._seen = self._run = now
        self._sent: deque[float] = deque(maxlen=max(10_000, self._places))
        self._refusals: deque[float] = deque(maxlen=10_000)
        self._best = (0.0, now)
        self._learned, self._settled = bool(rpm), now

    @property
    def rpm(self) -> float:
        """Requests a minute that the present pace stands for; infinite while no limit is known."""
        return 60 * self._pace / MARGIN

    def take(self, tokens: float = 0.0) -> float:
        """Seconds to wait before a call of so many tokens may go; 0 when it may, and then it counts as sent."""
        now = self._clock()
        self._recover(now)
        wait = max(self._next, self._next_token, self._paused, self._room(now)) - now
        if wait > 0:
            return wait
        if not self._sent or now - self._sent[-1] > IDLE_S:
            self._run = self._next = now
        self._next = max(self._next, now - CATCH_UP_S) + 1 / self._pace
        self._next_token = max(self._next_token, now - MEASURE_S) + tokens / self._tokens_a_second
        self._sent.append(now)
        return 0.0

    def told(self, found: Limits, *, refused: bool, unused: float) -> None:
        """What came of a call: the limits it found, was it refused, and tokens that it was charged for in vain."""
        self._next_token -= unused / self._tokens_a_second
        self.heed(found)
        if refused:
            self.refused(found.retry_after_s)

    def refused(self, retry_after_s: float | None = None) -> None:
        """A call was answered 429: nothing goes for as long as the provider says, and then slower."""
        now = self._clock()
        self._refusals.append(now)
        self._paused = max(self._paused, now + (retry_after_s or 0.0))
        if _count(self._refusals, now - WINDOW_S) < max(FEW, FEW_SHARE * _count(self._sent, now - WINDOW_S)):
            return
        if not self._learned:
            self._learned, self._settled = True, now + 1
        window = MEASURE_S if now > self._settled else 1.0  # the calls before were of a slower pace
        sent, refused = _count(self._sent, now - window), _count(self._refusals, now - window)
        through = max(sent - refused, 1) / min(window, max(now - self._run, 0.2))
        best, at = self._best
        if now - self._run >= MEASURE_S and (through >= best or now - at > REMEMBER_S):
            self._best = best, _ = through, now
        pace = max(MARGIN * through, 0.9 * best if refused < STRAY * sent else 0.0)
        self._pace = min(self._pace, pace)

    def heed(self, limits: Limits) -> None:
        """Follow the provider's own count: learn the rate where none is configured, stop where nothing is left."""
        now = self._clock()
        refill = _refill(limits.requests_limit, limits.requests_left, limits.requests_reset_s)
        low = (limits.requests_left or 0.0) < (limits.requests_limit or 0.0) / 2
        if refill and low and self._most == math.inf:
            self._learned = self._learned or MARGIN * refill < self._pace
            self._pace = min(self._pace, MARGIN * refill)
        if refill and not limits.requests_left:
            self._paused = max(self._paused, now + 1 / refill)
        refill = _refill(limits.tokens_limit, limits.tokens_left, limits.tokens_reset_s)
        a_percent = (limits.tokens_limit or 0.0) / 100
        if refill and (limits.tokens_left or 0.0) < a_percent:
            self._paused = max(self._paused, now + a_percent / refill)

    def _room(self, now: float) -> float:
        """When the last second has room: catching up may not put more calls into one than are allowed."""
        if not self._places or len(self._sent) < self._places:
            return now
        return self._sent[-self._places] + 2 - MARGIN

    def _recover(self, now: float) -> None:
        """After a refusal the pace grows by 0.05 % a second at first, by 0.5 % after a minute, 2 % after two."""
        elapsed, self._seen = min(now - self._seen, 1.0), now
        if self._pace >= self._most:
            return
        if self._learned:
            growth = 0.0005 * (1 + ((now - (self._refusals[-1] if self._refusals else self._run)) / 20) ** 2)
            self._pace = min(self._most, self._pace * (1 + growth * elapsed))
        else:
            self._pace *= 2**elapsed
            if self._pace > FREE:
                self._pace = self._most


class Turnstile:
    """Calls of one event loop pass here one by one, in the order they came; the schedule is this process's."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._line = asyncio.Lock()

    @property
    def rpm(self) -> float:
        """Requests a minute that are allowed, as far as is known; else infinite."""
        return self._rate.rpm

    async def admit(self, tokens: float) -> None:
        """Wait until a call of so many tokens may go."""
        async with self._line:
            while (wait := self._rate.take(tokens)) > 0:
                await asyncio.sleep(wait)

    async def told(self, found: Limits, *, refused: bool, unused: float) -> None:
        """What came of a call: the limits it found, was it refused, and tokens that it was charged for in vain."""
        self._rate.told(found, refused=refused, unused=unused)


def limits(headers: Mapping[str, str], *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Limits:
    """What the headers of an answer say about limits, as OpenAI (and many others) and Anthropic write them."""
    plain = {name.lower().removeprefix("llm_provider-"): value for name, value in headers.items()}

    def number(*names: str) -> float | None:
        return next((value for name in names if (value := _number(plain.get(name))) is not None), None)

    def seconds(*names: str) -> float | None:
        return next((value for name in names if (value := _seconds(plain.get(name), now())) is not None), None)

    milliseconds = number("retry-after-ms")
    return Limits(
        requests_left=number("x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining"),
        requests_reset_s=seconds("x-ratelimit-reset-requests", "anthropic-ratelimit-requests-reset"),
        requests_limit=number("x-ratelimit-limit-requests", "anthropic-ratelimit-requests-limit"),
        tokens_left=number("x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-remaining"),
        tokens_reset_s=seconds("x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"),
        tokens_limit=number("x-ratelimit-limit-tokens", "anthropic-ratelimit-tokens-limit"),
        retry_after_s=seconds("retry-after") if milliseconds is None else min(milliseconds / 1000, LONGEST_S),
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def _seconds(text: str | None, now: datetime) -> float | None:
    """Seconds out of `20`, `1m30.5s`, `12ms`, or a point in time (RFC 3339, or HTTP's own); at most an hour."""
    if text is None:
        return None
    found = _number(text)
    if found is None and (parts := SPAN.fullmatch(text.strip())):
        found = sum(UNIT_S[unit] * float(n) for n, unit in PART.findall(parts[0]))
    if found is None and (moment := _moment(text)):
        found = max(0.0, (moment - now).total_seconds())
    return None if found is None else min(found, LONGEST_S)


def _moment(text: str) -> datetime | None:
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
        except (ValueError, OverflowError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _refill(limit: float | None, left: float | None, reset_s: float | None) -> float | None:
    """Places a second that come free: `reset_s` is when all of them will be."""
    if limit is None or left is None or not reset_s or left >= limit:
        return None
    return (limit - left) / reset_s


def _count(times: deque[float], since: float) -> int:
    """How many of ascending times are not before `since`; looks only at those."""
    return sum(1 for _ in takewhile(lambda at: at >= since, reversed(times)))
