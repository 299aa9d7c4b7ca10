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
from benchmarks.row import Row, of_mean, of_share, shown


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
            yield from _shares(what, ours, name, peer.steady, peer.refused)
            bar = of_share(ours.lost, ours.requests)
            yield Row(f"{what}: requests lost", ours.lost, "%", name, peer.lost, "none", 0, bar)
    for name, contender in (("limit unknown", _ours_untold), ("limit configured twice too high", _ours_misled)):
        ours = _passage(f"ours, {name}", contender, RATES[0], sizes)
        yield from _shares(f"{RATES[0]} requests a minute, {name}", ours)


def _shares(what: str, ours: Passage, peer: str = "", steady: float = 0.0, refused: float = 0.0) -> Iterator[Row]:
    bars = of_mean(ours.by_second), of_share(ours.refused, ours.calls)
    yield Row(f"{what}: share of it in steady state", ours.steady, "%", peer, steady, "allowed", 100, bars[0])
    yield Row(f"{what}: calls answered 429", ours.refused, "%", peer, refused, "none", 0, bars[1])


def _passage(name: str, contender: Callable[[str, int, int], peers.Outcome], rpm: int, sizes: Sizes) -> Passage:
    requests = sizes.rate_s * rpm // 60
    with running(rpm=rpm, latency=LATENCY_S) as server:
        outcome = fresh(contender, server.url, requests, rpm)
        stats = server.stats()
    passage = Passage(
        tuple(100 * replies / (rpm / 60) for replies in _steady(stats["ok_per_second"])),
        100 * stats["ok"] / outcome.seconds / (rpm / 60),
        100 * stats["refused_429"] / max(1, stats["total"]),
        stats["total"],
        100 * outcome.lost / requests,
        requests,
        outcome.seconds,
    )
    shares = (passage.steady, passage.whole, passage.refused, passage.lost)
    tell(f"{name}, {rpm:,} a minute", *(shown(share, "%") for share in shares), shown(passage.seconds, "s"))
    return passage


def _steady(per_second: Sequence[int]) -> Sequence[int]:
    """Replies of each second of the steady state."""
    sums = list(itertools.accumulate(per_second))
    if not sums:
        return [0]
    first, last = (next(i for i, total in enumerate(sums) if total >= share * sums[-1]) for share in STEADY)
    return per_second[first + 1 : last + 1] or per_second[first : first + 1]


def _ours(url: str, requests: int, rpm: int, told: int | None = 1) -> peers.Outcome:
    places = max(CONCURRENCY, int(PLACES_S * rpm / 60))
    with client(url, rpm=told and told * rpm, concurrency=places) as llm:
        return asked(llm, 0, requests)


def _ours_untold(url: str, requests: int, rpm: int) -> peers.Outcome:
    return _ours(url, requests, rpm, None)


def _ours_misled(url: str, requests: int, rpm: int) -> peers.Outcome:
    return _ours(url, requests, rpm, 2)
