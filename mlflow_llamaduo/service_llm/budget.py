"""Dollars that may be spent: set an estimate aside before the call, settle with what it cost after."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply
from mlflow_llamaduo.service_llm.store import ReplyStore

T = TypeVar("T")

POLL_S = 0.5
"""How soon a call that waits for dollars looks again: another process may have freed some."""


@dataclass
class Desk:
    """The store's one writer in an event loop: what is asked of it while it commits goes into the next commit.

    A reply is on disk when `do` returns; a hundred replies that come together cost one sync of the disk.
    """

    store: ReplyStore
    _jobs: list[tuple[Callable[[], Any], "asyncio.Future[Any]"]] = field(default_factory=list)
    _writing: "asyncio.Task[None] | None" = None

    async def do(self, job: Callable[[], T]) -> T:
        """Run `job`, which writes to the store, in a transaction; what it returns, once that is committed."""
        return await asyncio.shield(self.post(job))

    def post(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        """The same, for those who cannot wait: `drain` does."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return done

    async def drain(self) -> None:
        """Wait until all that was asked for is committed."""
        while self._writing is not None:
            await asyncio.shield(self._writing)

    async def _write(self) -> None:
        try:
            while self._jobs:
                jobs, self._jobs = self._jobs, []
                await self._settle(jobs)
        finally:
            self._writing = None

    async def _settle(self, jobs: "list[tuple[Callable[[], Any], asyncio.Future[Any]]]") -> None:
        """All in one commit; if that fails, one by one, so that one bad job costs no paid reply."""
        try:
            results = await asyncio.to_thread(self._commit, [job for job, _ in jobs])
        except Exception as error:  # noqa: BLE001 - it is raised where the job is waited for
            if len(jobs) == 1:
                jobs[0][1].set_exception(error)
                return
            for one in jobs:
                await self._settle([one])
        else:
            for (_, done), result in zip(jobs, results, strict=True):
                done.set_result(result)

    def _commit(self, jobs: list[Callable[[], object]]) -> list[object]:
        with self.store.writing():
            return [job() for job in jobs]


@dataclass(frozen=True)
class Budget:
    """Caps in dollars: over all lives of a run, and over everything that was ever spent in the working folder.

    The sums are the store's, so that several processes keep to them together.
    """

    cap_usd: float
    folder_usd: float = float("inf")

    async def hold(self, desk: Desk, most_usd: float, *, model: str, purpose: Purpose) -> int | None:
        """Set `most_usd` aside for a call, and return the hold's number; None for a call that costs nothing.

        Waits while other calls hold what this one needs: they may turn out cheaper than their estimates.

        Raises:
            BudgetError: even with all other calls settled, the estimate would pass a cap.
        """
        if most_usd <= 0:
            return None

        taken: list[int] = []
        caps = {"cap_usd": self.cap_usd, "folder_usd": self.folder_usd}

        def take() -> bool:
            """True if it is worth waiting; one transaction, so that nothing is freed between the looks."""
            hold = desk.store.hold(most_usd, model=model, purpose=purpose, **caps)
            others = desk.store.held() if hold is None else 0
            if hold is None:  # those of dead processes are settled by now
                hold = desk.store.hold(most_usd, model=model, purpose=purpose, **caps)
            taken.extend([] if hold is None else [hold])
            return others > 0

        try:
            while await desk.do(take) and not taken:
                await asyncio.sleep(POLL_S)
        except asyncio.CancelledError:
            desk.post(lambda: desk.store.release(*taken))  # after `take`, if that is under way
            raise
        if not taken:
            raise self.used_up(desk.store, most_usd, purpose)
        return taken[0]

    def used_up(self, store: ReplyStore, most_usd: float, purpose: Purpose) -> BudgetError:
        """Which cap is in the way, and what to do about it."""
        spent, in_folder = store.spent_usd(purpose.run), store.spent_usd()
        if spent + most_usd > self.cap_usd:
            what, option = f"{spent:.4f} of {self.cap_usd:g} dollars spent", "--budget-usd"
        else:
            what = f"{in_folder:.4f} of {self.folder_usd:g} dollars spent in this folder"
            option = "--set limits.folder_budget_usd=..."
        if batched := store.batched_usd():
            what += f", {batched:.4f} set aside for open batches,"
        return BudgetError(
            f"the budget is used up: {what} and what comes next ({purpose.stage}) may cost {most_usd:.4f}; "
            f"raise it with {option} and run the same command again"
        )


def settle(
    store: ReplyStore, key: str, answer: Reply | Failure, *, model: str, purpose: Purpose, hold: int | None
) -> None:
    """Keep a reply, or what a failure cost, and free what was held."""
    if isinstance(answer, Reply):
        store.put(key, answer, model=model, purpose=purpose, hold=hold)
    else:
        store.lose(answer, model=model, purpose=purpose, hold=hold)
