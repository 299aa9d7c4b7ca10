"""How fast a service LLM is asked, in a simulation of the provider: nobody sleeps."""

import asyncio
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.service_llm.rate import Limits, Rate, Turnstile, limits
from mlflow_llamaduo.service_llm.shared_rate import turnstile
from mlflow_llamaduo.service_llm.terms import terms

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Server:
    """Lets `limit` requests into any second, to the letter; some are refused for reasons of its own."""

    limit: float
    stray: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311
    _let_in: deque[float] = field(default_factory=deque)

    def refuses(self, at: float) -> float | None:
        """Seconds to wait, as a Retry-After says them; None for a request that gets through."""
        while self._let_in and self._let_in[0] <= at - 1:
            self._let_in.popleft()
        if len(self._let_in) >= self.limit:
            return self._let_in[0] + 1 - at
        if self.rng.random() < self.stray:
            return 0.2
        self._let_in.append(at)
        return None


@dataclass
class Course:
    """What was let in and refused in every second, and the pace in requests a minute."""

    let_in: list[int]
    refused: list[int]
    pace: list[float]

    def a_second(self, begin: int, end: int | None = None) -> float:
        return sum(self.let_in[begin:end]) / len(self.let_in[begin:end])

    def refused_share(self, begin: int, end: int | None = None) -> float:
        refused = sum(self.refused[begin:end])
        return refused / (sum(self.let_in[begin:end]) + refused)


def course(
    rpm: float | None,
    server: Server,
    seconds: int,
    *,
    later: tuple[float, float] = (math.inf, 0),
    well_after: float = math.inf,
) -> Course:
    """As many calls as the rate gives away; they arrive within 11 ms.

    Args:
        rpm: as it is configured.
        server: answers.
        seconds: of virtual time.
        later: from when on another limit holds, and which.
        well_after: from when on nothing is refused for other reasons than the limit.
    """
    clock = Clock(0.0)
    rate, rng = Rate(rpm, None, clock=clock), random.Random(7)  # noqa: S311
    under_way: list[float] = []
    seen = Course([0] * seconds, [0] * seconds, [])
    while clock.now < seconds - 1:
        while under_way and under_way[0] <= clock.now:
            at = heapq.heappop(under_way)
            if at >= later[0]:
                server.limit = later[1]
            if at >= well_after:
                server.stray = 0.0
            retry_after = server.refuses(at)
            counts = seen.let_in if retry_after is None else seen.refused
            counts[int(at)] += 1
            if retry_after is not None:
                rate.told(Limits(retry_after_s=retry_after), refused=True, unused=0)
        wait = rate.take()
        if wait == 0:
            heapq.heappush(under_way, clock.now + 0.001 + rng.uniform(0, 0.01))
            clock.now += 0.0005 if rate.rpm == math.inf else 0
        else:
            clock.now = max(min(clock.now + wait, *under_way[:1], math.inf), clock.now + 1e-6)
        if clock.now >= len(seen.pace):
            seen.pace.append(rate.rpm)
    del seen.let_in[-2:], seen.refused[-2:]
    return seen


# The pace


@pytest.mark.parametrize("rpm", [60, 600, 6000])
def test_a_limit_that_is_known_is_used_up_and_not_passed(rpm: int) -> None:
    seen = course(rpm, Server(rpm / 60), 90)

    assert seen.a_second(10) >= 0.95 * rpm / 60
    assert seen.refused_share(0) <= 0.01


@pytest.mark.parametrize(
    ("rpm", "limit", "seconds"), [(1200, 10, 240), (12000, 100, 90), (None, 10, 240), (None, 100, 90)]
)
def test_a_limit_that_is_unknown_or_half_of_the_configured_is_found(
    rpm: int | None, limit: int, seconds: int
) -> None:
    seen = course(rpm, Server(limit), seconds)

    assert seen.a_second(seconds // 3) >= 0.88 * limit
    assert seen.refused_share(seconds // 3) <= 0.02


def test_a_limit_that_halves_is_followed() -> None:
    seen = course(600, Server(10), 300, later=(60.0, 5))

    assert seen.a_second(10, 59) >= 9.5
    assert seen.a_second(120) >= 0.85 * 5
    assert seen.refused_share(120) <= 0.02


def test_a_limit_that_doubles_is_found_again() -> None:
    seen = course(600, Server(5), 420, later=(60.0, 10))

    assert seen.pace[60] <= 330
    assert seen.a_second(360) >= 0.88 * 10


@pytest.mark.parametrize("stray", [0.02, 0.05, 0.1])
def test_refusals_that_no_limit_explains_do_not_stop_the_calls(stray: float) -> None:
    seen = course(6000, Server(math.inf, stray=stray), 120)

    assert min(seen.pace) >= 6000 / 4
    assert seen.a_second(30) >= 100 / 4


def test_one_refusal_in_a_hundred_does_not_slow_the_calls_down() -> None:
    seen = course(6000, Server(math.inf, stray=0.01), 90)

    assert sum(seen.refused) > 50
    assert min(seen.pace[10:]) >= 0.95 * 6000


def test_the_pace_comes_back_when_nothing_is_refused_any_more() -> None:
    seen = course(600, Server(math.inf, stray=0.6), 300, well_after=30.0)

    assert min(seen.pace) <= 0.7 * 600
    assert seen.pace[-1] >= 0.95 * 600


@pytest.mark.parametrize("rpm", [90, 119, 179])
def test_a_limit_that_is_no_whole_number_a_second_is_used_up_too(rpm: int) -> None:
    assert taken(Rate(rpm, None, clock=(clock := Clock())), clock, seconds=600) >= 0.95 * 10 * rpm


def taken(rate: Rate, clock: Clock, *, seconds: float, tokens: float = 0.0, late: float = 0.0) -> int:
    """Calls that a rate gives away in so many seconds; the caller comes back a bit late every time."""
    end, count = clock.now + seconds, 0
    while clock.now < end:
        wait = rate.take(tokens)
        count += wait == 0
        clock.now += wait + (late if wait else 0) + 1e-9
    return count


@given(st.sampled_from([60, 300, 600]), st.lists(st.floats(0, 0.3) | st.floats(1, 1.5), min_size=20, max_size=120))
@example(600, [0.1] * 20 + [0.3] + [0.001] * 90)
@example(300, [0.21] * 9 + [0.4] + [0.001] * 400)
def test_no_second_has_more_calls_than_are_allowed_however_the_callers_come(rpm: int, pauses: list[float]) -> None:
    clock = Clock()
    rate, sent = Rate(rpm, None, clock=clock), list[float]()
    for pause in pauses:
        clock.now += pause
        while rate.take() == 0:
            sent.append(clock.now)
    assert sent
    assert all(later - earlier >= 1 for earlier, later in zip(sent, sent[rpm // 60 :], strict=False))


@given(st.floats(1.2, 500))
def test_idle_time_gives_no_burst(idle: float) -> None:
    clock = Clock()
    rate = Rate(600, None, clock=clock)
    taken(rate, clock, seconds=3)
    clock.now += idle

    assert rate.take() == 0
    assert rate.take() >= 0.099
    assert taken(rate, clock, seconds=0.95) <= 10


@given(st.floats(0, 0.05))
def test_callers_that_are_late_catch_up(late: float) -> None:
    clock = Clock()

    assert taken(Rate(600, None, clock=clock), clock, seconds=60, late=late) >= 0.9 * 600


def test_a_wait_is_as_long_as_it_must_be() -> None:
    clock = Clock()
    rate = Rate(60, None, clock=clock)

    assert rate.take() == 0
    wait = rate.take()
    assert 0.95 <= wait <= 1.1
    clock.now += 0.5 * wait
    assert rate.take() == pytest.approx(0.5 * wait)
    clock.now += 0.5 * wait + 1e-9
    assert rate.take() == 0


def test_asking_how_long_to_wait_costs_nothing() -> None:
    clock = Clock()
    rate = Rate(60, None, clock=clock)
    rate.take()

    assert len({rate.take() for _ in range(1000)}) == 1


def test_without_a_limit_there_is_no_wait() -> None:
    rate = Rate(math.inf, None, clock=Clock())

    assert all(rate.take(10_000) == 0 for _ in range(1000))
    assert rate.rpm == math.inf


def test_where_the_limit_is_not_known_calls_begin_slowly_and_become_free() -> None:
    clock = Clock()
    rate = Rate(None, None, clock=clock)
    seconds = [taken(rate, clock, seconds=1) for _ in range(4)]

    assert 10 <= seconds[0] <= 50
    assert all(1.5 * before <= after <= 2.5 * before for before, after in pairwise(seconds))
    for _ in range(5):
        rate.take()
        clock.now += 1
    assert rate.take() == rate.take() == 0
    assert rate.rpm == math.inf


# What the provider says


@given(st.sampled_from([None, 60, 6000]), st.floats(0, 3600), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_nothing_goes_before_the_time_that_a_refusal_named(
    rpm: int | None, retry_after: float, shares: list[float]
) -> None:
    clock = Clock()
    rate = Rate(rpm, None, clock=clock)
    rate.take()
    rate.told(Limits(retry_after_s=retry_after), refused=True, unused=0)
    named = clock.now + retry_after
    for share in sorted(shares):
        clock.now = max(clock.now, 1000.0 + share * retry_after)
        wait = rate.take()
        assert clock.now + wait >= named - 1e-6
        if wait == 0:
            return
    clock.now = max(named, clock.now) + 2
    assert rate.take() == 0


def test_a_shorter_wait_that_is_named_later_does_not_cut_a_longer_one() -> None:
    clock = Clock()
    rate = Rate(600, None, clock=clock)
    for seconds in (60.0, 1.0, 0.0):
        rate.told(Limits(retry_after_s=seconds), refused=True, unused=0)

    assert rate.take() == pytest.approx(60.0)


def test_a_few_refusals_are_no_reason_to_slow_down() -> None:
    clock = Clock()
    rate = Rate(600, None, clock=clock)
    taken(rate, clock, seconds=20)
    rate.told(Limits(), refused=True, unused=0)
    rate.told(Limits(), refused=True, unused=0)

    assert rate.rpm == pytest.approx(600)


def test_refusals_cut_the_pace_to_what_got_through() -> None:
    clock = Clock()
    rate = Rate(600, None, clock=clock)
    taken(rate, clock, seconds=10)
    for _ in range(20):  # of the 49 calls in the last five seconds
        rate.told(Limits(), refused=True, unused=0)

    assert rate.rpm == pytest.approx(600 * 29 / 49, rel=0.1)


def test_the_pace_is_learnt_from_the_headers_where_none_is_configured() -> None:
    found = Limits(requests_limit=600, requests_left=100, requests_reset_s=50)
    rates = [Rate(rpm, None, clock=Clock()) for rpm in (None, 6000)]
    for rate in rates:
        rate.told(found, refused=False, unused=0)

    assert [rate.rpm for rate in rates] == [pytest.approx(600), pytest.approx(6000)]


def test_a_quota_that_is_hardly_touched_teaches_nothing() -> None:
    rate = Rate(None, None, clock=Clock())
    before = rate.rpm
    rate.told(Limits(requests_limit=10_000, requests_left=9_999, requests_reset_s=600), refused=False, unused=0)

    assert rate.rpm == before


@pytest.mark.parametrize(
    ("found", "wait"),
    [
        (Limits(requests_limit=600, requests_left=0, requests_reset_s=60), 0.1),
        (Limits(requests_limit=600, requests_left=1, requests_reset_s=60), 0),
        (Limits(tokens_limit=1000, tokens_left=9, tokens_reset_s=99.1), 1),
        (Limits(tokens_limit=1000, tokens_left=10, tokens_reset_s=99), 0),
        (Limits(requests_left=0), 0),
        (Limits(requests_limit=0, requests_left=0, requests_reset_s=0), 0),
        (Limits(tokens_left=0, tokens_limit=0), 0),
    ],
)
def test_where_nothing_is_left_the_next_call_waits_for_a_place(found: Limits, wait: float) -> None:
    rate = Rate(60_000, None, clock=Clock())
    rate.told(found, refused=False, unused=0)

    assert rate.take() == pytest.approx(wait)


NUMBERS = st.none() | st.floats(0, 1e12)


@given(st.builds(Limits, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.none() | st.floats(0, 3600)),
       st.booleans(), st.floats(-1e6, 1e6))  # fmt: skip
def test_whatever_the_headers_say_the_pace_stays_a_pace(found: Limits, refused: bool, unused: float) -> None:
    clock = Clock()
    rate = Rate(None, 60_000, clock=clock)
    for _ in range(3):
        rate.take()
        rate.told(found, refused=refused, unused=unused)
        clock.now += 1

    assert rate.rpm > 0
    assert rate.take() >= 0


# Tokens


@pytest.mark.parametrize("tokens", [10, 1000, 90_000])
def test_tokens_a_minute_are_used_up_and_not_passed(tokens: int) -> None:
    clock = Clock()
    calls = taken(Rate(None, 60_000, clock=clock), clock, seconds=600, tokens=tokens)

    assert 0.95 * 600_000 <= calls * tokens <= 600_000 + tokens


def test_the_tighter_of_the_two_limits_decides() -> None:
    for rpm, tpm, expected in ((60, 60_000, 600), (6000, 6_000, 60)):
        clock = Clock()
        assert 0.9 * expected <= taken(Rate(rpm, tpm, clock=clock), clock, seconds=600, tokens=1000) <= expected + 1


def test_tokens_that_were_not_used_are_free_again() -> None:
    clock = Clock()
    rate = Rate(None, 60_000, clock=clock)
    rate.take(10_000)
    before = rate.take(1)
    rate.told(Limits(), refused=False, unused=9_000)

    assert before == pytest.approx(10, rel=0.05)
    assert rate.take(1) == pytest.approx(before / 10)


def test_tokens_that_were_used_beyond_the_estimate_are_waited_for() -> None:
    clock = Clock()
    rate = Rate(None, 60_000, clock=clock)
    rate.take(1_000)
    rate.told(Limits(), refused=False, unused=-9_000)

    assert rate.take(1) == pytest.approx(10, rel=0.05)


# The turnstile


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes while somebody sleeps, and only then."""
    clock, sleep = Clock(), asyncio.sleep

    async def nap(seconds: float) -> None:
        clock.now += seconds + 1e-9
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    return clock


def test_calls_pass_one_by_one_in_the_order_they_came(clock: Clock) -> None:
    gate, passed = Turnstile(Rate(60, None, clock=clock)), []

    async def call(number: int) -> None:
        await gate.admit(0)
        passed.append((number, round(clock.now - 1000)))

    async def all_at_once() -> None:
        await asyncio.gather(*(call(number) for number in range(5)))

    asyncio.run(all_at_once())
    assert passed == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]


def test_a_call_that_is_cancelled_in_the_line_takes_no_place(clock: Clock) -> None:
    gate = Turnstile(Rate(60, None, clock=clock))

    async def three() -> None:
        calls = [asyncio.create_task(gate.admit(0)) for _ in range(3)]
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(three())
    assert clock.now == pytest.approx(1001.03, abs=0.05)


def test_what_one_call_is_told_holds_back_the_others(clock: Clock) -> None:
    gate = Turnstile(Rate(600, None, clock=clock))

    async def refused() -> None:
        await gate.admit(0)
        await gate.told(Limits(retry_after_s=30), refused=True, unused=0)
        await gate.admit(0)

    asyncio.run(refused())
    assert clock.now >= 1030


def gate(**settings: object) -> Turnstile:
    known = {"model": "openai/x", "rpm": 1, "input_usd_per_mtok": 0, "output_usd_per_mtok": 0, "json_schema": False}
    llm = ServiceModel.model_validate({**known, **settings})
    return turnstile(terms(llm), llm)


def passes(*gates: Turnstile) -> bool:
    """Whether one call through each of the gates passes at once."""

    async def through() -> None:
        for gate in gates:
            await gate.admit(0)

    async def soon() -> None:
        await asyncio.wait_for(through(), 0.005)

    try:
        asyncio.run(soon())
    except TimeoutError:
        return False
    return True


def test_two_askings_of_one_model_share_its_limit() -> None:
    assert not passes(gate(api_key_env="TWO_ASKINGS"), gate(api_key_env="TWO_ASKINGS"))


def test_another_key_server_or_model_has_a_limit_of_its_own() -> None:
    assert passes(
        gate(api_key_env="OWN_LIMIT"),
        gate(api_key_env="OWN_LIMIT_TOO"),
        gate(api_key_env="OWN_LIMIT", api_base="http://here/v1"),
        gate(api_key_env="OWN_LIMIT", model="openai/y"),
    )


# Headers


def test_openais_headers_are_understood() -> None:
    found = limits(
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
            "retry-after": "20",
        }
    )

    assert found == Limits(499, 0.12, 500, 0, 360, 30000, 20)


def test_anthropics_headers_are_understood() -> None:
    found = limits(
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-22T12:00:01.5Z",
            "anthropic-ratelimit-tokens-limit": "40000",
            "anthropic-ratelimit-tokens-remaining": "39000",
            "anthropic-ratelimit-tokens-reset": "2026-11-22T13:01:30+01:00",
        },
        now=lambda: NOW,
    )

    assert found == Limits(49, 1.5, 50, 39000, 90, 40000, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20), ("0", 0), ("0.5", 0.5), ("12ms", 0.012), ("6m0s", 360), ("1m30.5s", 90.5), ("1s", 1),
        ("0h2m3.5s", 123.5), ("1h2m3.5s", 3600), ("999999", 3600), ("1e300", 3600), (" 7s ", 7),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30), ("Sun, 22 Nov 2026 11:00:00 GMT", 0),
        ("Sun, 22 Nov 2027 12:00:00 GMT", 3600), ("2026-11-22T12:00:10Z", 10), ("2026-11-22T12:00:10", 10),
        ("2026-11-22T05:00:10-07:00", 10), ("9999-12-31T23:59:59-23:59", 3600), ("0001-01-01T00:00:00+23:59", 0),
        ("-5", None), ("nan", None), ("inf", None), ("-inf", None), ("", None), ("soon", None), ("1h soon", None),
        ("1d", None), ("ms", None), ("1 s", None), ("1.s", None), ("Mon,", None), (",", None), ("1 2 3 4 5 6", None),
        ("2026-13-45T00:00:00Z", None), ("\0", None), ("20; 30", None),
    ],
)  # fmt: skip
def test_the_many_ways_to_say_when(text: str, seconds: float | None) -> None:
    assert limits({"retry-after": text}, now=lambda: NOW).retry_after_s == (
        None if seconds is None else pytest.approx(seconds)
    )


def test_milliseconds_are_more_exact_than_seconds_and_win() -> None:
    assert limits({"retry-after": "2", "retry-after-ms": "1250"}).retry_after_s == 1.25
    assert limits({"retry-after": "2", "retry-after-ms": "soon"}).retry_after_s == 2


def test_headers_are_found_in_any_case_and_as_litellm_hands_them_on() -> None:
    assert limits({"Retry-After": "3"}).retry_after_s == 3
    assert limits({"llm_provider-Retry-After": "4"}).retry_after_s == 4
    assert limits({"llm_provider-x-ratelimit-limit-requests": "5"}).requests_limit == 5


def test_other_headers_say_nothing_about_limits() -> None:
    assert limits({}) == limits({"content-type": "application/json", "x-request-id": "20"}) == Limits()


NAMES = st.sampled_from(
    [prefix + name for prefix in ("", "llm_provider-") for name in (
        "retry-after", "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-requests",
        "anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-requests-limit")]
)  # fmt: skip
WORDS = st.sampled_from(
    ["Mon,", "01", "Jan", "2024", "00:00:00", "GMT", "+0100", "-9999", "T", "Z", "1e9", "ms", ":", "99"]
)
DATED = st.lists(WORDS, max_size=8).map(" ".join)


@given(
    st.dictionaries(NAMES | st.text(max_size=5), st.text() | DATED | st.from_regex(r"[\d.hms]{1,12}", fullmatch=True))
)
@example({"x-ratelimit-limit-requests": "9" * 5000, "retry-after": "9" * 5000 + "s"})
def test_garbage_says_nothing_and_breaks_nothing(headers: dict[str, str]) -> None:
    found = limits(headers, now=lambda: NOW)

    said = [getattr(found, name) for name in Limits.__dataclass_fields__]
    assert all(value is None or 0 <= value < math.inf for value in said)
    for seconds in (found.retry_after_s, found.requests_reset_s, found.tokens_reset_s):
        assert seconds is None or seconds <= 3600


@pytest.mark.parametrize("text", [f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}"])
def test_a_date_beyond_all_calendars_says_nothing(text: str) -> None:
    assert limits({"retry-after": text}).retry_after_s is None


def test_nobody_waits_more_than_an_hour_in_milliseconds_either() -> None:
    assert limits({"retry-after-ms": "1e12"}).retry_after_s == 3600
