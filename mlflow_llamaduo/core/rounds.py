"""Where the loop stands and when it stops. State is a value: `after` returns a new one."""

from dataclasses import dataclass, field, replace
from typing import Literal

from mlflow_llamaduo.core.gate import Decision
from mlflow_llamaduo.core.ledger import PAID, WORKED, Ledger, usd
from mlflow_llamaduo.core.pairwise import Duels
from mlflow_llamaduo.core.records import Adapter, Comparison, Judgement, PairSet, Response, Version
from mlflow_llamaduo.core.scoring import Scorecard

Where = int | str
"""On whose behalf a stage works: a round's number, or a baseline's name."""

StopReason = Literal["passed", "rounds", "plateau", "budget"]


def title(where: Where) -> str:
    """How a round or a baseline is called on the terminal, in the reply store and in the ledger."""
    return f"round {where}" if isinstance(where, int) else where


@dataclass(frozen=True, slots=True)
class Split:
    """The coverage dataset's parts: train grows, dev steers training, test only gates; some pairs are in none."""

    train: PairSet
    dev: PairSet
    test: PairSet
    left_out: PairSet = field(default=PairSet(()))


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop without success.

    `rounds` fine-tunings at most; stop as a plateau when the best mean precision has risen by less than
    `plateau_points` (0 to 100) over the last `plateau_rounds` rounds.
    """

    rounds: int
    plateau_rounds: int
    plateau_points: float


@dataclass(frozen=True, slots=True)
class Judged:
    """The responses of one model and all that was said of them: by all judges, in pairs, by reference metrics."""

    responses: tuple[Response, ...]
    judgements: tuple[Judgement, ...]
    comparisons: tuple[Comparison, ...] = ()
    reference: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Round:
    """One finished round. Dollars and seconds are those of this round alone.

    `seconds` are those of its stages in whichever alignment; `ledger` is what this one has paid.
    """

    number: int
    version: Version
    scorecard: Scorecard
    decision: Decision
    train_rows: int
    kept: int
    rejected: int
    seconds: float
    ledger: Ledger = ()
    others: tuple[Scorecard, ...] = ()
    """By the other judges: beside the gate's, never in it."""
    duels: tuple[Duels, ...] = ()
    calls_saved: int = 0
    """Judgings that were not asked for: the decision was settled without them."""
    reference: dict[str, float] = field(default_factory=dict)
    """Reference metrics by name, 0 to 100."""

    @property
    def service_llm_usd(self) -> float:
        """Dollars paid to the service LLM."""
        return usd(self.ledger, PAID)

    @property
    def training_usd(self) -> float:
        """Dollars of fine-tuning."""
        return usd(self.ledger, ("train",))

    @property
    def inference_usd(self) -> float:
        """Dollars of our own machines for answers and for parity."""
        return usd(self.ledger, WORKED) - self.training_usd


@dataclass(frozen=True, slots=True)
class State:
    """All that the loop needs to go on."""

    train: PairSet
    dev: PairSet
    test: PairSet
    baselines: dict[str, Scorecard] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()
    adapter: Adapter | None = None
    """That of the last round: its failures on dev choose the next examples."""

    @staticmethod
    def begin(split: Split) -> "State":
        """The state before round 0."""
        return State(split.train, split.dev, split.test)

    def with_baseline(self, name: str, scorecard: Scorecard | None) -> "State":
        """The state that also knows another model's scores on the test prompts, or that there is no such model."""
        others = {known: card for known, card in self.baselines.items() if known != name}
        return replace(self, baselines=others if scorecard is None else {**others, name: scorecard})

    @property
    def number(self) -> int:
        """The number of the round that comes next, from 0."""
        return len(self.rounds)

    def after(self, finished: Round, train: PairSet, adapter: Adapter) -> "State":
        """The state with one more round, which trained `adapter` on `train`."""
        return replace(self, train=train, rounds=(*self.rounds, finished), adapter=adapter)


def stop_reason(state: State, limits: Limits) -> StopReason | None:
    """Why the loop must not go on, or None. The budget is kept where money is spent (`BudgetError`)."""
    if not state.rounds:
        return None
    if state.rounds[-1].decision.passed:
        return "passed"
    if state.number >= limits.rounds:
        return "rounds"
    if _plateau([r.scorecard.precision.value for r in state.rounds], limits):
        return "plateau"
    return None


def _plateau(means: list[float], limits: Limits) -> bool:
    if limits.plateau_rounds <= 0 or len(means) <= limits.plateau_rounds:
        return False
    before, since = means[: -limits.plateau_rounds], means[-limits.plateau_rounds :]
    return max(since) < max(before) + limits.plateau_points
