"""The one door to a service LLM: stored replies first, then paid ones, at the allowed rate and within the budget."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from functools import partial

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.errors import BudgetError, ConfigError
from mlflow_llamaduo.service_llm import call
from mlflow_llamaduo.service_llm.batch import Batches
from mlflow_llamaduo.service_llm.budget import Budget, Desk, settle
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply, Request, most_tokens
from mlflow_llamaduo.service_llm.flow import Answer, Flow, drive, relaxed_gc
from mlflow_llamaduo.service_llm.meter import Meter
from mlflow_llamaduo.service_llm.rate import Limits, Turnstile
from mlflow_llamaduo.service_llm.shared_rate import turnstile
from mlflow_llamaduo.service_llm.store import REPLIES, ReplyStore
from mlflow_llamaduo.service_llm.terms import terms

Trace = Callable[[str, Request, Answer, Purpose], None]
"""Told model, request, answer and purpose of a sampled call."""


class ServiceLLM:
    """One model of the service LLM, asked on behalf of one run and stage.

    Args:
        llm: which model, and how it is asked.
        store: where replies and dollars are kept.
        budget: caps in dollars.
        purpose: run and stage that pay.
        trace: told of calls that were made (not of stored replies).
        trace_share: share of the calls, from 0 to 1, that `trace` is told of.

    Raises:
        ConfigError: the price of the model is not known.
    """

    def __init__(
        self,
        llm: ServiceModel,
        *,
        store: ReplyStore,
        budget: Budget,
        purpose: Purpose,
        trace: Trace | None = None,
        trace_share: float = 0.0,
    ) -> None:
        self.llm = llm
        self.terms = terms(llm)
        self.budget = budget
        self.purpose = purpose
        self.meter = Meter(self.terms.rpm)
        self.store = store
        self._trace = trace
        self._traced = int(trace_share * 2**32)
        known = store.typical(self.model, purpose.stage.rpartition(": ")[2])
        self._output = min(known.output_tokens if known else 256.0, llm.max_tokens)
        self._input_share = 0.5  # tokens of a request over `most_tokens`

    @property
    def model(self) -> str:
        """Its name as litellm has it."""
        return self.terms.name

    @property
    def spent_usd(self) -> float:
        """Dollars that the run has paid so far, in all its lives."""
        return self.store.spent_usd(self.purpose.run)

    def complete_many(self, requests: Iterable[Request]) -> Generator[tuple[int, Answer], None, None]:
        """Ask all requests, `llm.concurrency` at a time; yields (index, answer) as they finish.

        Requests are taken from the iterable as places come free, and nothing is kept of those that have ended: a
        million of them take no more memory than a hundred. Replies in the store come at once and cost nothing; equal
        requests that are open together are asked once. Closing the iterator cancels what is open.

        Raises:
            BudgetError: the next call would pass the budget; all replies before it are stored.
            ConfigError: the provider refused the key, or does not know the model; or a batch is open.
        """
        if not self.llm.batch and self.store.batches(self.model, self.purpose.run):
            raise ConfigError(
                f"a batch of this run is open at {self.model}: set batch to true again to collect it (or cancel it "
                f"there, and delete its row from the table batches of {REPLIES})"
            )
        answers = self._in_batches(requests) if self.llm.batch else self._one_by_one(requests)
        with relaxed_gc():
            for some in drive(answers):
                yield from some

    def key(self, request: Request) -> str:
        """What makes two requests the same one."""
        return digest(
            self.model,
            self.llm.api_base,
            [dict(m) for m in request.messages],
            call.parameters(self.terms, self.llm, request),
            request.repeat,
        )

    def _in_batches(self, requests: Iterable[Request]) -> AsyncGenerator[list[tuple[int, Answer]], None]:
        batches = Batches(self.terms, self.llm, self.store, self.budget, self.purpose, self.meter, self._show)
        return batches.complete_many((self.key(request), request) for request in requests)

    async def _one_by_one(self, requests: Iterable[Request]) -> AsyncGenerator[list[tuple[int, Answer]], None]:
        desk, gate = Desk(self.store), turnstile(self.terms, self.llm)
        flow = Flow(
            requests,
            key=self.key,
            stored=self._stored,
            ask=lambda key, request: self._ask(key, request, desk, gate),
            concurrency=self.llm.concurrency,
        )
        try:
            while not flow.over:
                stored = flow.pull()
                yield stored + await flow.collect(wait=not stored)
            if flow.used_up:
                raise flow.used_up
        finally:
            await flow.close()
            await desk.drain()  # all that was answered is on disk

    def _stored(self, key: str) -> Reply | None:
        reply = self.store.get(key)
        if reply is not None:
            self.meter.found()
        return reply

    async def _ask(self, key: str, request: Request, desk: Desk, gate: Turnstile) -> Answer:
        """Ask for one reply, in as many tries as are allowed; it is stored when this returns."""
        most = most_tokens(request)
        reason = ""
        for attempt in range(self.llm.retries + 1):
            answer, found = await self._try(key, request, desk, gate, most)
            if not isinstance(answer, call.Passing):
                return await self._ended(key, request, answer)
            reason = answer.reason
            if attempt < self.llm.retries:
                backoff = min(60.0, call.BACKOFF_S * 2.0 ** (attempt + 1)) * random.uniform(0.5, 1.0)  # noqa: S311
                if answer.refused and found.retry_after_s:
                    backoff /= 10  # the provider said when, and the turnstile sees to it that not all come at once
                await asyncio.sleep(max(backoff, found.retry_after_s or 0.0))
        return await self._ended(key, request, Failure(f"gave up after {self.llm.retries + 1} tries: {reason}"))

    async def _ended(self, key: str, request: Request, answer: Answer) -> Answer:
        self.meter.ended(answer)
        await self._show(key, request, answer)
        return answer

    async def _show(self, key: str, request: Request, answer: Answer) -> None:
        """Trace a call, if it is one of the sample."""
        if self._trace and int(key[:8], 16) < self._traced:
            await asyncio.to_thread(self._trace, self.model, request, answer, self.purpose)

    async def _try(
        self, key: str, request: Request, desk: Desk, gate: Turnstile, most: int
    ) -> tuple[Answer | call.Passing, Limits]:
        """One call, its dollars set aside before and settled after."""
        model, purpose = self.model, self.purpose
        tokens = self._input_share * most + self._output
        likely = self.terms.usd(int(self._input_share * most), int(self._output))
        hold = await self.budget.hold(desk, self.terms.usd(most, self.llm.max_tokens), model=model, purpose=purpose)
        lost = 0.0
        try:
            await gate.admit(tokens)
            self.meter.sent()
            lost = likely  # from here on it may be billed, whatever happens to us
            if hold is not None:
                desk.post(partial(self.store.sent, hold, likely))
            answer, found = await call.ask(self.terms, self.llm, request)
            kept: Answer
            if isinstance(answer, call.Passing):
                kept = Failure(answer.reason, likely if answer.in_doubt else 0.0)
                self.meter.retried(answer.refused, kept.usd)
            else:
                kept = answer
        except asyncio.CancelledError:
            kept = Failure("cancelled while it was open; it may have been billed", lost)
            desk.post(partial(settle, self.store, key, kept, model=model, purpose=purpose, hold=hold))
            raise
        except ConfigError:
            desk.post(partial(self.store.release, hold))
            raise
        used = self._learn(answer, most) if isinstance(answer, Reply) else tokens
        await gate.told(found, refused=isinstance(answer, call.Passing) and answer.refused, unused=tokens - used)
        self.meter.rpm = gate.rpm
        if hold is not None or isinstance(kept, Reply) or kept.usd:
            await desk.do(partial(settle, self.store, key, kept, model=model, purpose=purpose, hold=hold))
        return answer, found

    def _learn(self, reply: Reply, most: int) -> float:
        """Better guesses for the next calls: how many tokens a request has, and a reply."""
        self._output += 0.05 * (reply.output_tokens - self._output)
        self._input_share += 0.05 * (min(1.0, reply.input_tokens / most) - self._input_share)
        return reply.input_tokens + reply.output_tokens


__all__ = ["Budget", "BudgetError", "Failure", "Purpose", "Reply", "ReplyStore", "Request", "ServiceLLM"]
