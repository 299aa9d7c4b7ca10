"""What our own machines cost, in the same book and under the same caps as the service LLM's replies."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlflow_llamaduo.core.ledger import Ledger
from mlflow_llamaduo.service_llm.budget import Budget
from mlflow_llamaduo.service_llm.exchange import Purpose
from mlflow_llamaduo.service_llm.store import ReplyStore

NOTED_S = 60.0
"""How often a stage that goes on pays for what it has taken: that much is lost where its process is killed."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a stage runs on: all its workers together, dollars an hour."""

    name: str
    usd_per_hour: float = 0.0

    def usd(self, seconds: float) -> float:
        """Dollars for so many seconds."""
        return self.usd_per_hour * seconds / 3600


@dataclass(frozen=True, slots=True)
class Account:
    """The book of one alignment: its store, its caps, the name it pays by, and what its stages are likely to take.

    `likely_s` is in seconds, by `round 1: train`; a stage that is not in it has nothing set aside.
    """

    store: ReplyStore
    budget: Budget
    run: str
    likely_s: Mapping[str, float] = field(default_factory=dict)

    def purpose(self, stage: str) -> Purpose:
        """What a stage pays by."""
        return Purpose(self.run, stage)

    def ledger(self) -> Ledger:
        """All that was paid so far, in all lives of the alignment."""
        return self.store.ledger(self.run)

    @contextmanager
    def at_work(self, machine: Machine, stage: str) -> Iterator[Callable[[], None]]:
        """A stage on our own machines: its likely dollars are set aside before, its seconds are paid as they go.

        Args:
            machine: what it runs on.
            stage: its name, `round 1: train`.

        Yields:
            What is to be called while it goes on; what was taken since the last payment is paid in the end, too.

        Raises:
            BudgetError: what it is likely to cost would pass a cap.
        """
        purpose = self.purpose(stage)
        hold = self._hold(machine, purpose)
        paid = time.monotonic()

        def pay(*, ended: bool) -> None:
            nonlocal paid
            now = time.monotonic()
            seconds, paid = now - paid, now
            with self.store.writing():
                self.store.worked(seconds, machine.usd(seconds), machine=machine.name, purpose=purpose, hold=hold)
                if ended:
                    self.store.release(hold)

        def goes_on() -> None:
            if time.monotonic() - paid >= NOTED_S:
                pay(ended=False)

        try:
            yield goes_on
        finally:
            pay(ended=True)

    def _hold(self, machine: Machine, purpose: Purpose) -> int | None:
        most = machine.usd(self.likely_s.get(purpose.stage, 0.0))
        if most <= 0:
            return None
        caps = {"cap_usd": self.budget.cap_usd, "folder_usd": self.budget.folder_usd}
        with self.store.writing():
            hold = self.store.hold(most, model=machine.name, purpose=purpose, **caps)
        if hold is None:
            raise self.budget.used_up(self.store, most, purpose)
        return hold
