"""Batch mode: half the price, answers within a day. Submitted once, whatever happens in between.

That a batch is about to be submitted is on disk before it is, and its remote name after. A process that finds a
batch without a remote name asks the provider for it before it submits anything.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from time import time
from typing import TypeVar

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.service_llm import call
from mlflow_llamaduo.service_llm.batch_apis import TRANSIENT, BatchApi, batch_api
from mlflow_llamaduo.service_llm.budget import Budget, Desk, settle
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply, Request, most_tokens
from mlflow_llamaduo.service_llm.meter import Meter
from mlflow_llamaduo.service_llm.store import Batch, ReplyStore
from mlflow_llamaduo.service_llm.terms import BATCH_DISCOUNT, Terms

T = TypeVar("T")

ROWS = 10_000
"""Requests in one batch at most; one batch is in memory at a time. OpenAI takes 50,000, Anthropic 100,000."""
POLL_S = 15.0


@dataclass(frozen=True)
class Batches:
    """Batch mode for one model, run and stage."""

    terms: Terms
    llm: ServiceModel
    store: ReplyStore
    budget: Budget
    purpose: Purpose
    meter: Meter
    show: Callable[[str, Request, Reply | Failure], Awaitable[None]]

    async def complete_many(
        self, keyed: Iterable[tuple[str, Request]]
    ) -> AsyncGenerator[list[tuple[int, Reply | Failure]], None]:
        """Yields lists of (index, answer): stored ones first, and a batch's when it is over.

        Raises:
            BudgetError: not even one request fits into the budget.
            ConfigError: the provider has no batch API, or refused the key.
            StageError: the provider refused the batch.
        """
        api, desk = batch_api(self.terms, self.llm), Desk(self.store)
        for open_batch in self.store.batches(self.terms.name, self.purpose.run):
            await self._resume(api, desk, open_batch)
        numbered = enumerate(keyed)
        while some := list(islice(numbered, ROWS)):
            stored, wanted = self._sort(some)
            yield stored
            while wanted:
                batch, requests = await self._open(desk, wanted)
                answers = await self._finish(api, desk, batch, await self._submit(api, desk, batch, requests))
                for key in batch.keys:
                    await self.show(key, wanted[key][0], answers[key])
                yield [(index, answers[key]) for key in batch.keys for index in wanted.pop(key)[1]]

    def _sort(
        self, some: list[tuple[int, tuple[str, Request]]]
    ) -> tuple[list[tuple[int, Reply | Failure]], dict[str, tuple[Request, list[int]]]]:
        """What is stored, and what is wanted; equal requests are asked once."""
        stored: list[tuple[int, Reply | Failure]] = []
        wanted: dict[str, tuple[Request, list[int]]] = {}
        for index, (key, request) in some:
            if (reply := self.store.get(key)) is not None:
                self.meter.found()
                stored.append((index, reply))
            else:
                wanted.setdefault(key, (request, []))[1].append(index)
        return stored, wanted

    async def _open(self, desk: Desk, wanted: dict[str, tuple[Request, list[int]]]) -> tuple[Batch, list[Request]]:
        """Keep that a batch will be submitted; of the wanted requests, as many as the budget allows."""
        most = [
            BATCH_DISCOUNT * self.terms.usd(most_tokens(request), self.llm.max_tokens)
            for request, _ in wanted.values()
        ]
        size = len(wanted)
        while True:
            keys = tuple(islice(wanted, size))
            now = time()
            batch = Batch(digest(keys, now), keys, sum(most[:size]), now)
            if await desk.do(
                partial(
                    self.store.open_batch,
                    batch,
                    model=self.terms.name,
                    purpose=self.purpose,
                    cap_usd=self.budget.cap_usd,
                    folder_usd=self.budget.folder_usd,
                )
            ):
                return batch, [wanted[key][0] for key in keys]
            if size == 1:
                raise self.budget.used_up(self.store, batch.most_usd, self.purpose)
            size //= 2

    async def _submit(self, api: BatchApi, desk: Desk, batch: Batch, requests: list[Request]) -> str:
        async def submit() -> str:
            return await api.find(batch) or await api.submit(batch, requests)

        try:
            remote = await self._patient(partial(api.submit, batch, requests), again=submit)
        except Exception:
            if not await self._may_exist(api, batch):
                await desk.do(partial(self.store.close_batch, batch.id))
            raise
        await desk.do(partial(self.store.submitted, batch.id, remote))
        return remote

    async def _may_exist(self, api: BatchApi, batch: Batch) -> bool:
        """After a submission that failed: False only if the provider says that it has no such batch."""
        try:
            return await api.find(batch) is not None
        except Exception:  # noqa: BLE001 - the first error is the one to tell
            return True

    async def _resume(self, api: BatchApi, desk: Desk, batch: Batch) -> None:
        """Collect a batch of an earlier life; one that never reached the provider is forgotten."""
        remote = batch.remote or await self._patient(partial(api.find, batch))
        if remote is None:
            await desk.do(partial(self.store.close_batch, batch.id))
        else:
            await desk.do(partial(self.store.submitted, batch.id, remote))
            await self._finish(api, desk, batch, remote)

    async def _finish(self, api: BatchApi, desk: Desk, batch: Batch, remote: str) -> dict[str, Reply | Failure]:
        """Wait for a batch, and keep its replies."""
        while not (progress := await self._patient(partial(api.look, remote))).over:
            self.meter.note(f"batch {remote}: {progress.ended} of {progress.total} done")
            await asyncio.sleep(POLL_S)
        self.meter.note("")
        fetched = await self._patient(partial(api.fetch, remote))
        if not fetched.keys() <= set(batch.keys):
            raise StageError(f"the results of batch {remote} are of other requests: it is not ours")
        answers = {key: fetched.get(key, Failure("the batch ended without an answer")) for key in batch.keys}

        def keep() -> None:
            for key, answer in answers.items():
                settle(self.store, key, answer, model=self.terms.name, purpose=self.purpose, hold=None)
            self.store.close_batch(batch.id)

        await desk.do(keep)
        for answer in answers.values():
            self.meter.ended(answer)
        return answers

    async def _patient(self, ask: Callable[[], Awaitable[T]], again: Callable[[], Awaitable[T]] | None = None) -> T:
        """What `ask` returns; what passes is tried again, by `again` if that is another thing."""
        for attempt in range(self.llm.retries + 1):
            try:
                return await (again or ask)() if attempt else await ask()
            except TRANSIENT as error:
                reason = call.redacted(error, self.llm)
                self.meter.note(f"tried {attempt + 1} times: {reason}")
                await asyncio.sleep(min(60.0, call.BACKOFF_S * 2.0 ** (attempt + 1)))
        raise StageError(f"{self.terms.name}: gave up after {self.llm.retries + 1} tries: {reason}")
