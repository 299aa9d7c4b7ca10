"""May this version be promoted, and why not.

A rule is a figure and the least value it may have, on the figure itself or on the lower bound of its 95 % interval.
The paper's own gate (90 and 90) passes no local model of its Table 1, so the default asks for a share of the service
LLM's own score. Every rule's figure is told whether it passed or not; the decision is a value, and the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite
from typing import Any

from mlflow_llamaduo.core.figures import Absent, Against, Measured, duelled, measured
from mlflow_llamaduo.core.interval import Estimate
from mlflow_llamaduo.core.rules import Figure, GateRule
from mlflow_llamaduo.core.scoring import Scorecard, Table


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule, the figure it met with its 95 % interval, and what came of it.

    `value` is None where there is nothing to measure, a bound where there is none; `note` says more.
    """

    rule: GateRule
    value: float | None
    low: float | None
    high: float | None
    prompts: int
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        held = self.low if self.rule.by == "lower_bound" else self.value
        what = self.rule.figure + (" lower bound" if self.rule.by == "lower_bound" else "")
        if held is None:
            return f"{what}: {self.note}"
        shown = round(held, 1)
        if not self.passed and shown >= self.rule.at_least:  # 69.96 would read as 70.0 < 70
            shown = floor(10 * held) / 10
        line = f"{what} {shown:.1f} {'>=' if self.passed else '<'} {self.rule.at_least:g}"
        return f"{line} ({self.note})" if self.note else line


@dataclass(frozen=True, slots=True)
class Decision:
    """Every rule with its outcome; passed when all of them did and there was at least one."""

    results: tuple[RuleResult, ...]

    @property
    def passed(self) -> bool:
        """True when every rule passed."""
        return bool(self.results) and all(r.passed for r in self.results)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The rules that failed, in words; all of them when the gate passed."""
        failed = tuple(str(r) for r in self.results if not r.passed)
        return failed or tuple(str(r) for r in self.results)

    def __str__(self) -> str:
        return ("passed: " if self.passed else "not passed: ") + ", ".join(self.reasons)


def decide(scorecard: Scorecard, gate: Sequence[GateRule], against: Against) -> Decision:
    """Hold a scorecard against the gate.

    Args:
        scorecard: the candidate's scores.
        gate: the rules.
        against: the baselines and duels that they need. Without a champion there is none to be worse than, and a rule
            about it passes; any other that is missing is an error.

    Raises:
        ValueError: baseline and candidate were scored by different judges, or a rule lacks its baseline.
    """
    for name, other in against.baselines.items():
        if other.judge and scorecard.judge and other.judge != scorecard.judge:
            raise ValueError(f"judges differ: {name} by {other.judge}, candidate by {scorecard.judge}")
    return Decision(tuple(_result(rule, scorecard, against) for rule in gate))


def holds(table: Table, gate: Sequence[GateRule], against: Against) -> Any:
    """Whether the rules about scores hold, for each of the outcomes on the table's leading axes.

    Rules about duels and the judged share have nothing to do with scores and are left out.
    """
    passed: Any = True
    for rule in gate:
        figure = Figure.read(rule.figure)
        if figure.kind in ("judged_share", "win_rate"):
            continue
        found = measured(figure, table, against)
        if not isinstance(found, Absent):
            passed = passed & found.estimate.above(rule.at_least, by=rule.by)
        elif not found.passes:
            passed = passed & False
    return passed


def _result(rule: GateRule, card: Scorecard, against: Against) -> RuleResult:
    figure = Figure.read(rule.figure)
    if figure.kind == "judged_share":
        share = card.judged_share
        found: Measured | Absent = Measured(Estimate(share, share, share, 0.0, card.prompts))
    elif figure.kind == "win_rate":
        found = duelled(figure.other, card, against)
    else:
        found = measured(figure, card.table, against)
    if isinstance(found, Absent):
        return RuleResult(rule, None, None, None, 0, found.passes, found.why)
    at = found.estimate
    value, low, high = (_finite(bound) for bound in (at.value, at.low, at.high))
    passed = bool(at.above(rule.at_least, by=rule.by))
    return RuleResult(rule, value, low, high, at.prompts, passed, found.note)


def _finite(number: Any) -> float | None:
    return float(number) if isfinite(number) else None
