"""How the asking goes, for whoever watches: rate, done, failed, spent, projected."""

import math
import time
from collections import deque
from collections.abc import Callable

from mlflow_llamaduo.service_llm.exchange import Failure, Reply

WINDOW_S = 30.0


class Meter:
    """Counts of one stage's calls. Dollars are this meter's, not the run's; `watch` is called when they change."""

    def __init__(self, rpm: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rpm = rpm
        self._clock = clock
        self._began = clock()
        self._sent: deque[float] = deque()
        self.calls = self.replies = self.failed = self.stored = self.refusals = 0
        self.usd = 0.0
        self._note = ""
        self.watch: Callable[[], object] = lambda: None

    def sent(self) -> None:
        """A call has gone out."""
        now = self._clock()
        self.calls += 1
        self._sent.append(now)
        self._forget(now)

    def found(self) -> None:
        """A reply was in the store."""
        self.stored += 1

    def retried(self, refused: bool, usd: float) -> None:
        """A call passed without an answer; it may have cost something."""
        self.refusals += refused
        self.usd += usd

    def ended(self, answer: Reply | Failure) -> None:
        """A request has its answer."""
        self.usd += answer.usd
        if isinstance(answer, Reply):
            self.replies += 1
        else:
            self.failed += 1
        self.watch()

    def note(self, text: str) -> None:
        """What there is to say while nothing ends."""
        self._note = text
        self.watch()

    @property
    def per_minute(self) -> float:
        """Calls a minute, lately."""
        now = self._clock()
        self._forget(now)
        return 60 * len(self._sent) / max(1.0, min(WINDOW_S, now - self._began))

    def line(self, total: int) -> str:
        """One line: `412/min (98 % of 420), 12 stored, 5 refused, 3 failed, $0.42 of about $1.90`.

        Args:
            total: requests in all, those that are still to come included.
        """
        rate = f"{self.per_minute:.0f}/min"
        if self.rpm and not math.isinf(self.rpm):
            rate += f" ({100 * self.per_minute / self.rpm:.0f} % of {self.rpm:.0f})"
        parts = [rate]
        if self.stored:
            parts.append(f"{self.stored} stored")
        if self.refusals:
            parts.append(f"{self.refusals} refused")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.usd:
            done = self.replies + self.failed
            left = max(0, total - done - self.stored)
            parts.append(f"${self.usd:.2f} of about ${self.usd + left * self.usd / max(1, done):.2f}")
        if self._note:
            parts.append(self._note)
        return ", ".join(parts)

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0] < now - WINDOW_S:
            self._sent.popleft()
