"""One schedule for a model: in this process, or, where Ray runs, in an actor that all processes of the job ask.

The actor has a name in the job's own namespace and ends with the job. It costs a message to another process for every
call, about a millisecond where a call takes hundreds.
"""

import asyncio
import sys
from functools import cache
from typing import Any

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.service_llm.rate import Limits, Rate, Turnstile
from mlflow_llamaduo.service_llm.terms import Terms


class SharedTurnstile(Turnstile):
    """The same, its schedule in a Ray actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._line = asyncio.Lock()

    async def admit(self, tokens: float) -> None:
        """Wait until a call of so many tokens may go."""
        async with self._line:
            while (wait := await self._actor.take.remote(tokens)) > 0:
                await asyncio.sleep(wait)

    async def told(self, found: Limits, *, refused: bool, unused: float) -> None:
        """What came of a call; nobody waits for the actor to have heard it."""
        self._actor.told.remote(found, refused=refused, unused=unused)


def turnstile(terms: Terms, llm: ServiceModel) -> Turnstile:
    """The turnstile for a model: calls by the same key to the same server share their schedule."""
    if terms.offline:
        return Turnstile(Rate(terms.rpm, terms.tpm))
    name = digest(terms.name, llm.api_base, llm.api_key_env, terms.rpm, terms.tpm)
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return Turnstile(_rate(name, terms.rpm, terms.tpm))
    shared = ray.remote(Rate).options(name=f"llamaduo-rate-{name}", get_if_exists=True, num_cpus=0)
    return SharedTurnstile(shared.remote(terms.rpm, terms.tpm))


@cache
def _rate(_: str, rpm: int | None, tpm: int | None) -> Rate:
    return Rate(rpm, tpm)
