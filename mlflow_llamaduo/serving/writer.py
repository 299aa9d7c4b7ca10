"""The thread that writes answers: requests come in from the event loop, tokens go back to it.

PyTorch computes in one thread, and an event loop must not wait for it.
"""

import asyncio
import itertools
import queue
import threading
from collections.abc import AsyncGenerator, Callable

from mlflow_llamaduo.inference.continuous import Asked, Batch, Step
from mlflow_llamaduo.inference.engine import Sampling

Heard = Step | BaseException


class Writer:
    """Keeps a `Batch` going while there is something to write."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._listeners: dict[int, Callable[[Heard], object]] = {}
        self._keys = itertools.count()
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="llamaduo-writer", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> BaseException | None:
        """What ended the thread, if anything did: the replica is to be started again."""
        return self._broken

    def ask(
        self,
        ids: list[int],
        sampling: Sampling,
        *,
        stops: frozenset[int],
        slot: int | None,
        samples: int = 1,
        likeliest: int = 0,
    ) -> "Conversation":
        """Ask for answers to a prompt; they are written from when they are listened to."""
        return Conversation(self, Asked(next(self._keys), ids, sampling, stops, slot, samples, likeliest))

    def join(self, asked: Asked, listener: Callable[[Heard], object]) -> None:
        """Write a request, and tell `listener`, in this thread, of each step."""

        def do() -> None:
            self._listeners[asked.key] = listener
            self._batch.join(asked)

        if self._broken is not None:
            listener(self._broken)
        self._inbox.put(do)

    def leave(self, key: int, sample: int | None = None) -> None:
        """Write no more for a request, or for one of its answers."""

        def do() -> None:
            self._batch.leave(key, sample)
            if sample is None:
                self._listeners.pop(key, None)

        self._inbox.put(do)

    def _run(self) -> None:
        try:
            while True:
                while self._batch.idle or not self._inbox.empty():
                    self._inbox.get()()
                for step in self._batch.step():
                    if step.key in self._listeners:
                        self._listeners[step.key](step)
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            self._broken = error
            for listener in self._listeners.values():
                listener(error)
            raise


class Conversation:
    """One request's answers, step by step."""

    def __init__(self, writer: Writer, asked: Asked) -> None:
        self._writer = writer
        self._asked = asked
        self._open = set(range(asked.samples))

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Every step of every answer; closed early, nothing more is written.

        Raises:
            BaseException: what ended the writer.
        """
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[Heard]()
        self._writer.join(self._asked, lambda step: loop.call_soon_threadsafe(heard.put_nowait, step))
        try:
            while self._open:
                step = await heard.get()
                if isinstance(step, BaseException):
                    raise step
                if step.sample in self._open:
                    if step.ended:
                        self._open.discard(step.sample)
                    yield step
        finally:
            self._writer.leave(self._asked.key)

    def stop(self, sample: int) -> None:
        """One of the answers has said enough."""
        if sample in self._open:
            self._open.discard(sample)
            self._writer.leave(self._asked.key, sample)
