"""From a request that was let in to its answer: by the version that was chosen, and by whom else where that fails.

replica        another one where the first has gone and nothing was sent to the client
champion       where the canary cannot be loaded
service LLM    where the project says so (`serving.fallback`), and never beyond its dollars a day
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from grpc import RpcError
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from mlflow_llamaduo.config import Fallback
from mlflow_llamaduo.serving.keys import Key
from mlflow_llamaduo.serving.protocol import ChatRequest, Delta, Refusal, Usage
from mlflow_llamaduo.serving.routing import Route, champion_of

AGAIN_AFTER_S = 1
ELSEWHERE = (ActorDiedError, ActorUnavailableError, RpcError)
"""The replica has gone: as long as nothing was sent to the client, another one answers."""
FAILED = (RayError, BackPressureError, RpcError)
"""What Ray raises where a replica was asked; the last where a stream's connection broke."""
NOT_LOADED = "model_not_loaded"
log = logging.getLogger("ray.serve")
Whole = tuple[tuple[Delta, ...], Usage]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was let in: by which key, and which version answers."""

    request: ChatRequest
    key: Key | None
    route: Route

    @property
    def who(self) -> str:
        """Who asks, as far as it is known."""
        return who(self.request, self.key)


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answers: the version of the request, or a service LLM (by its name) in its place."""

    asked: Asked
    service_llm: str = ""

    @property
    def by(self) -> str:
        """Its name."""
        return self.service_llm or self.asked.route.name

    @property
    def how(self) -> str:
        """Why it is this one."""
        return "service_llm" if self.service_llm else self.asked.route.how

    @property
    def headers(self) -> dict[str, str]:
        """What a client is told of it."""
        version = {} if self.service_llm else {"x-llamaduo-version": str(self.asked.route.pick.number)}
        return {**version, "x-llamaduo-answered-by": self.by, "x-llamaduo-route": self.how}


class Answers:
    """What stands behind an ingress.

    Args:
        replica: the replicas.
        outside: who asks the service LLM; None where nothing does.
        fallbacks: by task.
    """

    def __init__(
        self, replica: DeploymentHandle, outside: DeploymentHandle | None, fallbacks: Mapping[str, Fallback]
    ) -> None:
        self._replica = replica
        self._outside = outside
        self._fallbacks = {task: fallback for task, fallback in fallbacks.items() if fallback.usd_per_day}

    async def whole(self, asked: Asked) -> tuple[Answered, Whole | Refusal]:
        """A whole answer, and whose it is."""
        answered = Answered(asked)
        found = await self._local(asked)
        if _unloaded(found, asked):
            answered = Answered(replace(asked, route=champion_of(asked.route)))
            found = await self._local(answered.asked)
        if isinstance(found, Refusal) and self._falls(found, asked):
            reply = await self._by_service_llm(asked)
            if reply is not None:
                return Answered(asked, reply[0]), reply[1]
        return answered, found

    async def begun(self, asked: Asked) -> "tuple[Answered, Begun | Refusal]":
        """A stream from its first piece on: what is refused is refused before anything is sent."""
        answered = Answered(asked)
        found = await self._stream(asked)
        if _unloaded(found, asked):
            answered = Answered(replace(asked, route=champion_of(asked.route)))
            found = await self._stream(answered.asked)
        if isinstance(found, Refusal) and self._falls(found, asked):
            reply = await self._by_service_llm(asked)
            if reply is not None:
                ((delta,), usage) = reply[1]
                return Answered(asked, reply[0]), Begun(delta, _last(usage))
        return answered, found

    async def _local(self, asked: Asked) -> Whole | Refusal:
        pick, wait = asked.route.pick, self._wait(asked)
        replica = self._replica.options(multiplexed_model_id=pick.key)
        for last in (False, True):
            response = replica.answer.remote(pick, asked.request)
            try:
                found: Whole | Refusal = await asyncio.wait_for(response, wait)
            except TimeoutError:
                response.cancel()
                return _late(wait)
            except FAILED as error:
                if last or not isinstance(error, ELSEWHERE):
                    return failure(error)
            else:
                return found
        raise AssertionError

    async def _stream(self, asked: Asked) -> "Begun | Refusal":
        pick, wait = asked.route.pick, self._wait(asked)
        # By gRPC: a piece that comes as an object of Ray costs three times as much, and there is one for every token.
        replica = self._replica.options(stream=True, multiplexed_model_id=pick.key, _by_reference=False)
        for last in (False, True):
            pieces = replica.stream.remote(pick, asked.request)
            try:
                first = await asyncio.wait_for(anext(pieces), wait)
            except TimeoutError:
                pieces.cancel()
                return _late(wait)
            except FAILED as error:
                if last or not isinstance(error, ELSEWHERE):
                    return failure(error)
            else:
                return first if isinstance(first, Refusal) else Begun(first, pieces)
        raise AssertionError

    def _wait(self, asked: Asked) -> float | None:
        """Seconds until the service LLM is asked instead."""
        fallback = self._fallbacks.get(asked.route.model.task)
        return fallback.after_seconds if fallback and _plain(asked.request) else None

    def _falls(self, refusal: Refusal, asked: Asked) -> bool:
        """Whether the service LLM may answer in the place of a refusal: the client's own mistakes stay its own."""
        return refusal.status >= 500 and asked.route.model.task in self._fallbacks and _plain(asked.request)

    async def _by_service_llm(self, asked: Asked) -> tuple[str, Whole] | None:
        """Its name and answer, or None where it has none, or its dollars are spent."""
        if self._outside is None:
            return None
        try:
            found: tuple[str, Whole] | None = await self._outside.answer.remote(asked.route.model.task, asked.request)
        except FAILED as error:
            log.warning("llamaduo: the service LLM could not be asked: %s", type(error).__name__)
            return None
        return found


class Begun:
    """A stream whose first piece has come."""

    def __init__(self, first: Delta | Usage, rest: Any) -> None:
        self.first = first
        self._rest = rest

    async def pieces(self) -> AsyncGenerator[Delta | Usage, None]:
        """All of them, the first one too; closed early, nothing more is written.

        Raises:
            RayError, RpcError: the replica has failed, or gone.
        """
        ended = isinstance(self.first, Usage)
        try:
            yield self.first
            while not ended:
                piece = await anext(self._rest)
                ended = isinstance(piece, Usage)
                yield piece
        finally:
            if not ended and hasattr(self._rest, "cancel"):
                self._rest.cancel()


def who(request: ChatRequest, key: Key | None) -> str:
    """Who asks: the API key's name and the request's `user`; empty where there is neither."""
    return "\n".join(part for part in (key.name if key else "", request.user or "") if part)


def failure(error: Exception) -> Refusal:
    """What a client is told of an error that came out of Ray: nothing of its text."""
    if isinstance(error, BackPressureError):
        return Refusal(503, "all replicas are busy: ask again", None, "overloaded", AGAIN_AFTER_S)
    if isinstance(error, ELSEWHERE):
        return Refusal(503, "the replica that answered has ended: ask again", None, "replica_gone", AGAIN_AFTER_S)
    return Refusal(500, f"the replica failed ({type(error).__name__}); ask again")


def _late(wait: float | None) -> Refusal:
    return Refusal(503, f"nothing came within {wait:g} s: ask again", None, "late", AGAIN_AFTER_S)


def _plain(request: ChatRequest) -> bool:
    """Whether any LLM can answer it: one answer, without tokens' probabilities."""
    return request.n == 1 and not request.logprobs


def _unloaded(found: object, asked: Asked) -> bool:
    return isinstance(found, Refusal) and found.code == NOT_LOADED and asked.route.how == "canary"


async def _last(usage: Usage) -> AsyncIterator[Usage]:
    yield usage
