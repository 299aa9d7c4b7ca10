"""May this version be promoted, and why not.

A rule is a figure and the least value it may have. The paper's own gate (90 and 90) passes no local model of
its Table 1, so the gate is the user's, per task, and every rule's figure is told whether it passed or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from mlflow_llamaduo.core.scoring import Scorecard

FIGURES = (
    "precision_mean",
    "similarity_mean",
    "precision_coverage_50",
    "precision_coverage_70",
    "similarity_coverage_50",
    "similarity_coverage_70",
    "judged_share",
    "gain_over_base",
)
"""What a rule may ask for; all 0 to 100, `gain_over_base` in points of mean precision above the base model."""


NO_GAIN = -100.0
"""Where base or candidate has no verdict at all there is nothing to compare: no gate must pass on that."""


@dataclass(frozen=True, slots=True)
class GateRule:
    """`figure` must be at least `at_least`."""

    figure: str
    at_least: float


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule, the value it met, and what came of it."""

    rule: GateRule
    value: float
    passed: bool

    def __str__(self) -> str:
        relation = ">=" if self.passed else "<"
        shown = floor(10 * self.value) / 10  # rounded, 69.96 would read as 70.0 < 70
        return f"{self.rule.figure} {shown:.1f} {relation} {self.rule.at_least:g}"


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


def decide(scorecard: Scorecard, gate: Sequence[GateRule], baselines: Mapping[str, Scorecard]) -> Decision:
    """Hold a scorecard against the gate.

    Args:
        scorecard: the candidate's scores.
        gate: the rules.
        baselines: scorecards of other models on the same test prompts; `base` is needed by `gain_over_base`.

    Raises:
        ValueError: baseline and candidate were scored by different judges, or a rule lacks its baseline.
    """
    figures = scorecard.figures()
    if (base := baselines.get("base")) is not None:
        if base.judge != scorecard.judge:
            raise ValueError(f"judges differ: base by {base.judge}, candidate by {scorecard.judge}")
        told = base.unjudged < base.judgings and scorecard.unjudged < scorecard.judgings
        figures["gain_over_base"] = scorecard.precision.mean - base.precision.mean if told else NO_GAIN
    if missing := [rule.figure for rule in gate if rule.figure not in figures]:
        raise ValueError(f"the gate asks for {', '.join(missing)}, which needs the base model's scorecard")
    values = [(rule, figures[rule.figure]) for rule in gate]
    return Decision(tuple(RuleResult(rule, value, value >= rule.at_least) for rule, value in values))
