"""One schedule for a model: in this process, or, where Ray runs, in an actor that all processes of the job ask.

The actor has a name in the job's own namespace and ends with the job. It costs a message to another process for every
call, about a millisecond where a call takes hundreds.
"""

import asyncio
import math
import sys
from functools import cache
from typing import Any

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.service_llm.rate import Limits, Rate, Turnstile
from mlflow_llamaduo.service_llm.terms import Terms

_kept: dict[str, Any] = {}
"""Handles of this process: Ray ends an actor that nobody holds one of, and with it what the rate has learned."""


class SharedTurnstile(Turnstile):
    """The same, its schedule in a Ray actor. It is made anew where the process that made it has ended."""

    def __init__(self, name: str, terms: Terms) -> None:
        self._name = name
        self._terms = terms
        self._actor = self._find()
        self._line = asyncio.Lock()

    @property
    def rpm(self) -> float:
        """Requests a minute that are configured; what the actor has learned is not asked for."""
        return float(self._terms.rpm or "inf")

    async def admit(self, tokens: float) -> None:
        """Wait until a call of so many tokens may go."""
        async with self._line:
            while (wait := await self._take(tokens)) > 0:
                await asyncio.sleep(wait)

    async def told(self, found: Limits, *, refused: bool, unused: float) -> None:
        """What came of a call; nobody waits for the actor to have heard it."""
        self._actor.told.remote(found, refused=refused, unused=unused)

    async def _take(self, tokens: float) -> float:
        ray = sys.modules["ray"]
        try:
            return float(await self._actor.take.remote(tokens))
        except ray.exceptions.RayActorError:
            self._actor = self._find()
            return float(await self._actor.take.remote(tokens))

    def _find(self) -> Any:
        ray = sys.modules["ray"]
        named = ray.remote(Rate).options(name=f"llamaduo-rate-{self._name}", get_if_exists=True, num_cpus=0)
        _kept[self._name] = named.remote(self._terms.rpm, self._terms.tpm)
        return _kept[self._name]


def turnstile(terms: Terms, llm: ServiceModel) -> Turnstile:
    """The turnstile for a model: calls by the same key to the same server share their schedule."""
    if terms.offline:
        return Turnstile(Rate(terms.rpm or math.inf, terms.tpm))
    name = digest(terms.name, llm.api_base, llm.api_key_env, terms.rpm, terms.tpm)
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return Turnstile(_rate(name, terms.rpm, terms.tpm))
    return SharedTurnstile(name, terms)


@cache
def _rate(_: str, rpm: int | None, tpm: int | None) -> Rate:
    return Rate(rpm, tpm)
