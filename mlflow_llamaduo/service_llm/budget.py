"""Dollars that may be spent: reserve an estimate before the call, settle with what it cost after."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mlflow_llamaduo.errors import BudgetError


@dataclass
class Reservation:
    """Dollars held for one call; the caller sets `paid_usd` to what it really cost."""

    paid_usd: float = 0.0


class Budget:
    """A cap in dollars over all calls of a run; what was spent before counts."""

    def __init__(self, cap_usd: float, spent_usd: float = 0.0) -> None:
        self.cap_usd = cap_usd
        self.spent_usd = spent_usd
        self._held: list[float] = []
        self._changed: asyncio.Event | None = None

    @asynccontextmanager
    async def reserve(self, estimate_usd: float) -> AsyncIterator[Reservation]:
        """Hold `estimate_usd` for a call.

        Waits while other calls hold what this one needs: they may turn out cheaper than their estimates.

        Raises:
            BudgetError: even with all other calls settled, the estimate would pass the cap.
        """
        while self.spent_usd + sum(self._held) + estimate_usd > self.cap_usd:
            if not self._held:
                raise BudgetError(
                    f"the budget is used up: {self.spent_usd:.4f} of {self.cap_usd:g} dollars spent and the next "
                    f"call may cost {estimate_usd:.4f}; raise it with --budget-usd and run the same command again"
                )
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()
        self._held.append(estimate_usd)
        reservation = Reservation()
        try:
            yield reservation
        finally:
            self._held.remove(estimate_usd)
            self.spent_usd += reservation.paid_usd
            if self._changed:
                self._changed.set()
                self._changed = None
