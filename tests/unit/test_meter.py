import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.exchange import Failure, Reply
from mlflow_llamaduo.service_llm.meter import Meter


@dataclass
class Clock:
    now: float = 50.0

    def __call__(self) -> float:
        return self.now


def reply(usd: float = 0.0) -> Reply:
    return Reply("text", 1, 1, usd)


def busy(meter: Meter, clock: Clock, *, seconds: float, calls: int) -> None:
    for _ in range(calls):
        clock.now += seconds / calls
        meter.sent()


def test_the_line_tells_rate_stored_failed_spent_and_projected() -> None:
    clock = Clock()
    meter = Meter(420, clock=clock)
    busy(meter, clock, seconds=30, calls=206)
    for _ in range(12):
        meter.found()
    for _ in range(407):
        meter.ended(reply(0.001))
    for _ in range(3):
        meter.ended(Failure("no"))

    line = meter.line(total=12 + 410 * 5)
    assert line == "412/min (98 % of 420), 12 stored, 3 failed, $0.41 of about $2.04"


def test_what_there_is_nothing_of_is_not_told() -> None:
    clock = Clock()
    meter = Meter(None, clock=clock)
    assert meter.line(10) == "0/min"

    busy(meter, clock, seconds=30, calls=10)
    meter.ended(reply())
    assert meter.line(10) == "20/min"


@pytest.mark.parametrize("rpm", [None, 0, math.inf])
def test_without_a_limit_there_is_no_share_of_it(rpm: float | None) -> None:
    assert "%" not in Meter(rpm, clock=Clock()).line(1)


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    meter = Meter(600, clock=clock)
    busy(meter, clock, seconds=60, calls=600)
    assert meter.per_minute == pytest.approx(600, rel=0.01)

    clock.now += 15
    assert meter.per_minute == pytest.approx(300, rel=0.01)
    clock.now += 16
    assert meter.per_minute == 0
    assert meter.calls == 600


def test_the_first_seconds_are_no_half_minute() -> None:
    clock = Clock()
    meter = Meter(600, clock=clock)
    busy(meter, clock, seconds=3, calls=30)

    assert meter.per_minute == pytest.approx(600)


def test_the_first_call_is_no_rate_of_thousands() -> None:
    clock = Clock()
    meter = Meter(None, clock=clock)
    clock.now += 0.001
    meter.sent()

    assert meter.per_minute == 60


def test_a_retry_counts_as_such_and_its_dollars_too() -> None:
    meter = Meter(None, clock=Clock())
    meter.retried(True, 0.0)
    meter.retried(False, 0.25)
    meter.ended(Failure("empty", 0.5))

    assert (meter.refusals, meter.failed, meter.usd) == (1, 1, 0.75)
    assert "1 refused, 1 failed" in meter.line(1)
    assert meter.line(1).endswith("$0.75 of about $0.75")


@pytest.mark.parametrize(
    ("total", "stored", "ended", "projected"),
    [(100, 0, 10, 10.0), (100, 50, 10, 5.0), (10, 0, 10, 1.0), (5, 0, 10, 1.0), (20, 20, 10, 1.0)],
)
def test_the_projection_takes_what_is_left_at_the_price_so_far(
    total: int, stored: int, ended: int, projected: float
) -> None:
    meter = Meter(None, clock=Clock())
    for _ in range(ended):
        meter.ended(reply(0.1))
    for _ in range(stored):
        meter.found()

    assert meter.line(total).endswith(f"$1.00 of about ${projected:.2f}")


def test_whoever_watches_is_told_of_answers_and_notes() -> None:
    meter = Meter(None, clock=Clock())
    lines: list[str] = []
    meter.watch = lambda: lines.append(meter.line(2))
    meter.ended(reply(0.25))
    meter.note("a batch of 9 is under way")
    meter.ended(reply(0.25))

    assert lines == [
        "0/min, $0.25 of about $0.50",
        "0/min, $0.25 of about $0.50, a batch of 9 is under way",
        "0/min, $0.50 of about $0.50, a batch of 9 is under way",
    ]


@given(st.lists(st.sampled_from(["sent", "found", "ended", "failed", "retried", "wait"])), st.integers(0, 99))
def test_a_line_can_be_told_at_any_time(events: list[str], total: int) -> None:
    clock = Clock()
    meter = Meter(60, clock=clock)
    for event in events:
        match event:
            case "wait":
                clock.now += 10
            case "sent":
                meter.sent()
            case "found":
                meter.found()
            case "retried":
                meter.retried(True, 0.01)
            case _:
                meter.ended(reply(0.01) if event == "ended" else Failure("no"))

    line = meter.line(total)
    assert line.startswith(f"{meter.per_minute:.0f}/min (")
    if meter.usd:
        spent, projected = line.rpartition("$")[0], line.rpartition("$")[2]
        assert float(projected) >= float(spent.rpartition("$")[2].split()[0])
