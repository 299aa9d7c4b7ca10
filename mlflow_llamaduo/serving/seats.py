"""Which version's adapter is in which slot of a replica: loaded on demand, the least used one makes room.

Ray Serve's multiplexing keeps the order of use, and sends requests to replicas that hold a version already. What it
does not know is that an answer may still be written by a version that has just had to go. So there is one slot more
than it may keep versions, and a slot is free when nobody holds its seat any more, neither Ray nor a request.
"""

import asyncio
import weakref
from dataclasses import dataclass
from pathlib import Path

from ray import serve

from mlflow_llamaduo.core.catalogue import Pick
from mlflow_llamaduo.errors import BaseModelError, DataError, LlamaDuoError
from mlflow_llamaduo.inference.engine import WEIGHTS
from mlflow_llamaduo.inference.voice import Voice
from mlflow_llamaduo.pyfunc_model import Package, read_package
from mlflow_llamaduo.serving.shelf import Shelf
from mlflow_llamaduo.serving.writer import Writer

SPARE = 1
"""Slots beyond the versions that are kept."""
ROOM_WITHIN_S = 30.0


@dataclass(frozen=True)
class Seat:
    """A loaded version; `slot` is None where the version is a base of its own, with the adapter merged into it."""

    package: Package
    voice: Voice
    slot: int | None


class Seats:
    """The versions on one base.

    Args:
        writer: holds the base and the adapters, `most` + SPARE slots of them.
        shelf: where versions come from.
        base: digest of the base; versions of others are refused.
        most: versions that are kept.
    """

    def __init__(self, writer: Writer, shelf: Shelf, base: str, *, most: int) -> None:
        self._writer = writer
        self._shelf = shelf
        self._base = base
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(most + SPARE):
            self._free.put_nowait(slot)

        async def load(key: str) -> Seat:
            return await self._load(Pick.of(key))

        self._kept = serve.multiplexed(load, max_num_models_per_replica=most)

    async def seat(self, pick: Pick) -> Seat:
        """A version, loaded if it is not; its slot is its own as long as the seat is held.

        Raises:
            DataError: it is not to be had, is more than plain LoRA, or has another base; or no slot became free.
        """
        found: Seat = await self._kept(pick.key)
        return found

    async def _load(self, pick: Pick) -> Seat:
        try:
            folder = await asyncio.to_thread(self._shelf.folder, pick)
            package = read_package(folder)
            if package.base_digest != self._base:
                raise BaseModelError(
                    f"it is on another base, {package.base_model} ({package.base_digest}): start a service for it"
                )
            adapter = folder / "adapter"
            voice = await asyncio.to_thread(Voice, adapter, self._writer.generation)
            if not (adapter / WEIGHTS).is_file() and package.merged:
                return Seat(package, voice, None)
            return await self._seated(adapter, package, voice)
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
        ) as error:  # the files are not ours
            raise DataError(f"{pick.name} version {pick.number} cannot be read: {error}") from error
        except (LlamaDuoError, RuntimeError) as error:
            raise DataError(f"{pick.name} version {pick.number} cannot be loaded: {error}") from error

    async def _seated(self, adapter: Path, package: Package, voice: Voice) -> Seat:
        try:
            slot = await asyncio.wait_for(self._free.get(), ROOM_WITHIN_S)
        except TimeoutError:
            raise DataError("all slots are in use: set serving.adapters higher") from None
        try:
            await self._writer.load(slot, adapter)
        except BaseException:
            self._free.put_nowait(slot)
            raise
        seat = Seat(package, voice, slot)
        loop = asyncio.get_running_loop()
        freed = weakref.finalize(seat, lambda: loop.call_soon_threadsafe(self._free.put_nowait, slot))
        freed.atexit = False
        return seat
