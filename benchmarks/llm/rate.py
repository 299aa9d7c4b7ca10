"""How much of an allowed rate gets through, and how many calls are refused on the way."""

import itertools
from collections.abc import Callable, Iterator, Sequence

from benchmarks import peers
from benchmarks.llm.common import (
    CONCURRENCY,
    LATENCY_S,
    PLACES_S,
    RATES,
    STEADY,
    Passage,
    Sizes,
    asked,
    asked_by_gather,
    client,
    fresh,
    tell,
)
from benchmarks.openai_server import running
from benchmarks.row import Row, shown


def rate(sizes: Sizes) -> Iterator[Row]:
    """At 600 and 6,000 requests a minute, one contender after the other, each on a new server."""
    tell("rate", "steady", "whole run", "answered 429", "lost", "time")
    for rpm in RATES:
        ours, gather, router = (
            _passage(name, peer, rpm, sizes)
            for name, peer in (("ours", _ours), ("gather", asked_by_gather), ("Router", peers.router))
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
        outcome = fresh(contender, server.url, requests, rpm)
        stats = server.stats()
    passage = Passage(
        100 * _steady(stats["ok_per_second"]) / (rpm / 60),
        100 * stats["ok"] / outcome.seconds / (rpm / 60),
        100 * stats["refused_429"] / max(1, stats["total"]),
        100 * outcome.lost / requests,
        outcome.seconds,
    )
    shares = (passage.steady, passage.whole, passage.refused, passage.lost)
    tell(f"{name}, {rpm:,} a minute", *(shown(share, "%") for share in shares), shown(passage.seconds, "s"))
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
    with client(url, rpm=told and told * rpm, concurrency=places) as llm:
        return asked(llm, 0, requests)


def _ours_untold(url: str, requests: int, rpm: int) -> peers.Outcome:
    return _ours(url, requests, rpm, None)


def _ours_misled(url: str, requests: int, rpm: int) -> peers.Outcome:
    return _ours(url, requests, rpm, 2)
