"""Copies of answered requests for another version, off the requests' way: nobody gets its answers, a judge compares.

The counts are a tag of that version, `llamaduo.shadow`. They go on after a restart.
"""

import asyncio
import logging
import random
from collections.abc import Mapping

from mlflow.exceptions import MlflowException
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from mlflow_llamaduo.champion import version_tag, write_version_tag
from mlflow_llamaduo.core.catalogue import Pick
from mlflow_llamaduo.core.pairwise import duels
from mlflow_llamaduo.core.shadowed import Shadowed
from mlflow_llamaduo.serving.protocol import ChatRequest, Refusal
from mlflow_llamaduo.serving.shelf import hurried

TAG = "llamaduo.shadow"
WRITTEN_EVERY_S = 5.0
log = logging.getLogger("ray.serve")


class Shadow:
    """A Ray Serve deployment that asks the replicas once more.

    Args:
        replica: the replicas.
        outside: who asks the judge; None where nothing is judged.
        judged: the share of the copies that are judged, from 0 to 1, by task.
    """

    def __init__(
        self, replica: DeploymentHandle, outside: DeploymentHandle | None, judged: Mapping[str, float]
    ) -> None:
        hurried()
        self._replica = replica
        self._outside = outside
        self._judged = judged
        self._counts: dict[Pick, Shadowed] = {}
        self._changed: set[Pick] = set()
        self._writing: asyncio.Task[None] | None = None

    async def copy(self, task: str, champion: Pick, other: Pick, request: ChatRequest, text: str) -> bool:
        """Ask `other` what `champion` has answered with `text`, and count what comes of it.

        Returns:
            Whether it was asked: not where the counts so far cannot be read, which would be written over.
        """
        try:
            await self._begin(other, champion.number)
        except MlflowException as error:
            log.warning("llamaduo: no copy for %s: its counts are not read: %s", other.key, _line(error))
            return False
        asked = request.model_copy(update={"stream": False, "n": 1, "logprobs": False, "top_logprobs": None})
        replica = self._replica.options(multiplexed_model_id=other.key)
        try:
            found = await replica.answer.remote(other, asked)
        except (RayError, BackPressureError) as error:
            found = Refusal(503, type(error).__name__)
        failed = isinstance(found, Refusal)
        own = "" if isinstance(found, Refusal) else "".join(delta.text for delta in found[0])
        counts = self._counts[other].copied(failed=failed, same=not failed and own == text)
        self._keep(other, counts)
        if failed or self._outside is None or random.random() >= self._judged.get(task, 0.0):  # noqa: S311
            return True
        compared = await self._outside.compare.remote(task, request, own, text)
        for duel in duels(compared):
            self._keep(other, self._counts[other].dueled(duel.result))
        return True

    async def _begin(self, pick: Pick, against: int) -> None:
        """Have the counts so far, of an earlier service too.

        Raises:
            MlflowException: they cannot be read.
        """
        if pick in self._counts and self._counts[pick].against == against:
            return
        tag = await asyncio.to_thread(version_tag, pick.name, pick.number, TAG)
        if pick not in self._counts or self._counts[pick].against != against:  # another copy may have been faster
            self._counts[pick] = Shadowed.of(tag, against)

    def _keep(self, pick: Pick, counts: Shadowed) -> None:
        self._counts[pick] = counts
        self._changed.add(pick)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Tags are written together, every few seconds."""
        await asyncio.sleep(WRITTEN_EVERY_S)
        while self._changed:
            pick = self._changed.pop()
            try:
                await asyncio.to_thread(write_version_tag, pick.name, pick.number, TAG, self._counts[pick].text())
            except MlflowException as error:
                log.warning("llamaduo: the shadow's counts are not written: %s", _line(error))


def _line(error: MlflowException) -> str:
    return " ".join(str(error).split())[:200]
