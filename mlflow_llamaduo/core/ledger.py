"""What an alignment has cost, by round or baseline and by stage: dollars, seconds and tokens beside what was planned.

    replies and losses of the service LLM, hours of our own machines  ->  Entry  ->  sums

An entry is what this alignment has paid itself: a reply or an adapter that another one paid for costs it nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

PAID = ("answer", "compare", "judge", "synthesize")
"""The stages that ask a service LLM."""
WORKED = ("train", "infer", "pack")
"""The stages that run on our own machines; `pack` is the check that what is packed is what was trained."""
STAGES = (*WORKED, *PAID)


@dataclass(frozen=True, slots=True)
class Entry:
    """One stage of one round (`round 1`) or baseline (`base`).

    `seconds` are those of the machine where one worked, and else the waiting for replies, summed over the calls that
    may have been open together; `calls` counts replies.
    """

    where: str
    stage: str
    usd: float = 0.0
    seconds: float = 0.0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: "Entry") -> "Entry":
        """The sum of both, by the name of this one."""
        return replace(
            self,
            usd=self.usd + other.usd,
            seconds=self.seconds + other.seconds,
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


Ledger = tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Dollars:
    """An estimate: at the least, as it is likely to be, at the most."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage of one round or baseline, as it was planned: calls, likely tokens read and written, dollars, minutes.

    `model` is the service LLM, or the machine that works. `minutes` is None for a batch: its provider has a day.
    """

    stage: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: Dollars
    minutes: float | None

    @property
    def place(self) -> tuple[str, str]:
        """`round 1: judge` as where and what."""
        return taken_apart(self.stage)


def taken_apart(stage: str) -> tuple[str, str]:
    """`round 1: judge` as where and what; `judge` alone is a command's, outside of any round."""
    where, _, name = stage.rpartition(": ")
    return where, name


def usd(ledger: Iterable[Entry], stages: Iterable[str] = STAGES) -> float:
    """Dollars of some stages."""
    wanted = frozenset(stages)
    return sum(entry.usd for entry in ledger if entry.stage in wanted)


def by_stage(ledger: Iterable[Entry]) -> dict[str, Entry]:
    """Sums over all rounds and baselines, in the order of `STAGES`."""
    sums: dict[str, Entry] = {}
    for entry in ledger:
        known = sums.get(entry.stage, Entry("all", entry.stage))
        sums[entry.stage] = known.plus(entry)
    return {stage: sums[stage] for stage in STAGES if stage in sums}


def figures(ledger: Iterable[Entry]) -> dict[str, float]:
    """Sums by stage as metrics: `judge_usd`, `judge_seconds`, and tokens where there are any."""
    found: dict[str, float] = {}
    for stage, entry in by_stage(ledger).items():
        found |= {f"{stage}_usd": entry.usd, f"{stage}_seconds": entry.seconds}
        tokens = {"input_tokens": entry.input_tokens, "output_tokens": entry.output_tokens}
        found |= {f"{stage}_{name}": float(count) for name, count in tokens.items() if count}
    return found
