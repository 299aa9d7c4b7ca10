"""The one door to a service LLM: stored replies first, then litellm, within the budget.

Any provider that litellm knows works by its name (`openai/gpt-4o`, `anthropic/...`, `gemini/...`), and any
OpenAI-compatible server by `api_base`. `offline/...` models are served in this process through the same door.
"""

import asyncio
import logging
import os
import random
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from typing import Any, TypeVar

import litellm
from litellm import exceptions as failures

from mlflow_llamaduo.config import ServiceLLMs
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.errors import BudgetError, ConfigError
from mlflow_llamaduo.service_llm.budget import Budget
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from mlflow_llamaduo.service_llm.offline import OfflineLLM
from mlflow_llamaduo.service_llm.replies import whole
from mlflow_llamaduo.service_llm.store import ReplyStore
from mlflow_llamaduo.service_llm.terms import price

litellm.suppress_debug_info = True
litellm.telemetry = False
logging.getLogger("LiteLLM").setLevel(logging.ERROR)
litellm.custom_provider_map = [{"provider": "offline", "custom_handler": OfflineLLM()}]

T = TypeVar("T")

BACKOFF_S = 1.0
"""The first retry waits 1 to 2 of these, every next one twice as long, a minute at most."""

TRANSIENT = (
    failures.RateLimitError,
    failures.Timeout,
    failures.APIConnectionError,
    failures.InternalServerError,
    failures.ServiceUnavailableError,
    failures.BadGatewayError,
)
PERMANENT = (
    failures.AuthenticationError,
    failures.PermissionDeniedError,
    failures.NotFoundError,
    failures.BadRequestError,
    failures.UnprocessableEntityError,
    failures.APIError,
)


class ServiceLLM:
    """One model of the service LLM, asked on behalf of one run and stage."""

    def __init__(
        self, model: str, settings: ServiceLLMs, *, store: ReplyStore, budget: Budget, run: str, stage: str
    ) -> None:
        self.model = model
        self.settings = settings
        self._store = store
        self.budget = budget
        self._run = run
        self._stage = stage
        self._price = price(model, settings)
        self._structured = bool(litellm.supports_response_schema(model))

    def complete(self, requests: Iterable[Request]) -> Generator[tuple[int, Reply | Failure], None, None]:
        """Ask all requests, `settings.concurrency` at a time; yields (index, reply) as they finish.

        Equal requests are asked once: sampled answers to one prompt are often the same text. Replies that are in
        the store come first and cost nothing. Closing the iterator cancels what is open.

        Raises:
            BudgetError: the next call would pass the budget; the replies before it are stored.
            ConfigError: the provider refused the key or does not know the model.
        """
        missing: dict[str, tuple[Request, list[int]]] = {}
        for index, request in enumerate(requests):
            key = self.key(request)
            if (reply := self._store.get(key)) is not None:
                yield index, reply
            else:
                missing.setdefault(key, (request, []))[1].append(index)
        if missing:
            for key, answer in _drive(self._complete({key: request for key, (request, _) in missing.items()})):
                yield from ((index, answer) for index in missing[key][1])

    def key(self, request: Request) -> str:
        """What makes two requests the same one."""
        return digest(
            self.model,
            self.settings.api_base,
            [dict(m) for m in request.messages],
            self._parameters(request),
            request.repeat,
        )

    async def _complete(self, requests: dict[str, Request]) -> AsyncGenerator[tuple[str, Reply | Failure], None]:
        queue = iter(requests.items())
        running: set[asyncio.Task[tuple[str, Reply | Failure]]] = set()
        try:
            while True:
                while len(running) < self.settings.concurrency and (item := next(queue, None)) is not None:
                    running.add(asyncio.create_task(self._one(*item)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                errors = [error for task in done if (error := task.exception()) is not None]
                for task in done:
                    if task.exception() is None:
                        yield task.result()
                if errors:
                    raise errors[0]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _one(self, key: str, request: Request) -> tuple[str, Reply | Failure]:
        estimate = self._usd(_tokens(request), self.settings.max_tokens)
        async with self.budget.reserve(estimate) as reservation:
            reply = await self._ask(request)
            reservation.paid_usd = reply.usd
            if isinstance(reply, Reply):
                self._store.put(key, reply, run=self._run, stage=self._stage, model=self.model)
            elif reply.usd:
                self._store.lose(reply, run=self._run, stage=self._stage, model=self.model)
        return key, reply

    async def _ask(self, request: Request) -> Reply | Failure:
        reason = ""
        for attempt in range(self.settings.retries + 1):
            if attempt:
                await asyncio.sleep(min(60.0, BACKOFF_S * 2.0**attempt) * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                answer = await litellm.acompletion(
                    model=self.model,
                    messages=[dict(m) for m in request.messages],
                    api_base=self.settings.api_base,
                    api_key=self._key(),
                    timeout=self.settings.timeout_s,
                    num_retries=0,
                    **self._parameters(request),
                )
            except TRANSIENT as error:
                reason = self._redacted(error)
            except (
                failures.AuthenticationError,
                failures.PermissionDeniedError,
                failures.NotFoundError,
            ) as error:
                raise ConfigError(f"{self.model} cannot be used: {self._redacted(error)}") from None
            except PERMANENT as error:
                return Failure(self._redacted(error))
            else:
                return self._reply(answer)
        return Failure(f"gave up after {self.settings.retries + 1} tries: {reason}")

    def _reply(self, answer: Any) -> Reply | Failure:
        text = answer.choices[0].message.content if answer.choices else None
        given, written = answer.usage.prompt_tokens, answer.usage.completion_tokens
        usd = self._usd(given, written)
        if not text:
            return Failure("the reply is empty", usd)
        return Reply(whole(text), given, written, usd, cut=answer.choices[0].finish_reason == "length")

    def _parameters(self, request: Request) -> dict[str, Any]:
        """Only the token limit is set; sampling stays at the provider's defaults, as in the paper."""
        parameters: dict[str, Any] = {"max_tokens": self.settings.max_tokens}
        if request.schema and self._structured:
            parameters["response_format"] = {"type": "json_schema", "json_schema": dict(request.schema)}
        return parameters

    def _key(self) -> str | None:
        name = self.settings.api_key_env
        if name:
            return os.environ.get(name)
        # A server of the user's own without a key must not be sent the key of a provider; litellm wants some word.
        return "none" if self.settings.api_base else None

    def _redacted(self, error: Exception) -> str:
        """An error in one line without any key in it: providers quote keys back."""
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        for name, value in os.environ.items():
            secret = name == self.settings.api_key_env or name.upper().endswith(("KEY", "TOKEN", "SECRET"))
            if secret and len(value) >= 8:
                text = text.replace(value, f"${name}")
        return text[:300]

    def _usd(self, input_tokens: int, output_tokens: int) -> float:
        input_usd, output_usd = self._price
        return (input_tokens * input_usd + output_tokens * output_usd) / 1e6


def _tokens(request: Request) -> int:
    """More tokens than the request has: two bytes each (English has four, Chinese two), some for every message."""
    return sum(len(m["content"].encode()) // 2 + 8 for m in request.messages)


def _drive(replies: AsyncGenerator[T, None]) -> Iterator[T]:
    """An async iterator as a plain one; closing it closes the other and its event loop."""
    with asyncio.Runner() as runner:
        try:
            while True:
                yield runner.run(_next(replies))
        except StopAsyncIteration:
            return
        finally:
            runner.run(_close(replies))


async def _next(replies: AsyncGenerator[T, None]) -> T:
    return await anext(replies)


async def _close(replies: AsyncGenerator[T, None]) -> None:
    await replies.aclose()


__all__ = ["Budget", "BudgetError", "Failure", "Reply", "ReplyStore", "Request", "ServiceLLM"]
