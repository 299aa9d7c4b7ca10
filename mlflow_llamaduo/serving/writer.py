"""Who writes answers in a replica: one interface, two engines.

    TransformersWriter    here: PyTorch computes in a thread of its own, since an event loop must not wait for it
    VllmWriter            vllm_writer.py: vLLM's own asynchronous engine

Both hold adapters in numbered slots, write many answers at once, and give tokens back as they come.
"""

import asyncio
import itertools
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlflow_llamaduo.errors import LlamaDuoError
from mlflow_llamaduo.inference.engine import Sampling, Step

if TYPE_CHECKING:
    from mlflow_llamaduo.inference.continuous import Asked

Heard = Step | BaseException


class Conversation(Protocol):
    """One request's answers, step by step."""

    def steps(self) -> AsyncGenerator[Step, None]:
        """Every step of every answer; closed early, nothing more is written.

        Raises:
            BaseException: what ended the writer.
        """

    def stop(self, sample: int) -> None:
        """One of the answers has said enough."""


class Writer(Protocol):
    """A base model with adapters, which writes what it is asked for."""

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and answer may have together."""

    @property
    def generation(self) -> Any:
        """The base's generation settings, or None."""

    @property
    def broken(self) -> BaseException | None:
        """What ended it, if anything did: the replica is to be started again."""

    async def load(self, slot: int, folder: Path) -> None:
        """Put an adapter into a slot, in the place of the one before.

        Raises:
            FileNotFoundError: there is no adapter in the folder.
            DataError: it is more than plain LoRA, or is not of this base.
        """

    def ask(
        self,
        ids: list[int],
        sampling: Sampling,
        *,
        stops: frozenset[int],
        slot: int | None,
        samples: int = 1,
        likeliest: int | None = None,
    ) -> Conversation:
        """Ask for answers to a prompt that is shorter than the context; they are written when they are listened to.

        Args:
            ids: the prompt's tokens.
            sampling: how to choose, and how many tokens at most.
            stops: the tokens that end an answer.
            slot: whose adapter answers; None is the bare base.
            samples: how many answers; each has a stream of chance of its own.
            likeliest: how many tokens to tell with each one, the likeliest first; None tells no logarithms.

        Raises:
            KeyError: there is no adapter in the slot.
        """


class TransformersWriter:
    """Keeps a `Batch` going while there is something to write.

    Args:
        base: the base model's folder.
        adapters: slots for adapters.
        rows: answers that are written at once.
    """

    def __init__(self, base: Path, *, adapters: int, rows: int) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._listeners: dict[int, Callable[[Heard], object]] = {}
        self._keys = itertools.count()
        self._broken: BaseException | None = None
        begun: Future[None] = Future()
        thread = threading.Thread(target=self._run, args=(base, adapters, rows, begun), name="llamaduo-writer")
        thread.daemon = True
        thread.start()
        begun.result()

    def _load(self, base: Path, adapters: int, rows: int) -> None:
        """In the thread that computes: OpenMP's threads belong to the one that calls them.

        Where two threads have called it libgomp counts more of them than cores, and has them sleep between any two
        operations: on two cores 50 tokens a second instead of 80 to 96, and 500,000 wake-ups instead of 2,000.
        """
        from mlflow_llamaduo.inference.adapters import Adapters
        from mlflow_llamaduo.inference.continuous import Batch
        from mlflow_llamaduo.inference.packed import pack
        from mlflow_llamaduo.inference.transformers_engine import context_of, load_base

        model = load_base(str(base))
        pack(model)
        self._generation = model.generation_config
        self._context = context_of(model)
        self._adapters = Adapters(model, slots=adapters)
        self._batch: Batch = Batch(model, self._adapters, self._context, rows)

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and answer may have together."""
        return self._context

    @property
    def generation(self) -> Any:
        """The base's generation settings."""
        return self._generation

    @property
    def broken(self) -> BaseException | None:
        """What ended the thread, if anything did."""
        return self._broken

    async def load(self, slot: int, folder: Path) -> None:
        """Put an adapter into a slot: read beside the thread, put in between two steps."""
        from mlflow_llamaduo.inference.adapters import read

        adapter = await asyncio.to_thread(read, folder)

        def put() -> None:
            self._batch.forget(slot)
            self._adapters.put(slot, adapter)

        await self._between(put)

    def ask(
        self,
        ids: list[int],
        sampling: Sampling,
        *,
        stops: frozenset[int],
        slot: int | None,
        samples: int = 1,
        likeliest: int | None = None,
    ) -> "Listening":
        """Ask for answers to a prompt."""
        from mlflow_llamaduo.inference.continuous import Asked

        if slot is not None and not self._adapters.holds(slot):
            raise KeyError(slot)
        return Listening(self, Asked(next(self._keys), ids, sampling, stops, slot, samples, likeliest))

    def join(self, asked: "Asked", listener: Callable[[Heard], object]) -> None:
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

    async def _between(self, change: Callable[[], None]) -> None:
        """Do something to the adapters while no step is computed; what it raises is raised here."""
        if self._broken is not None:
            raise self._broken
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def do() -> None:
            error: BaseException | None = None
            try:
                change()
            except (LlamaDuoError, RuntimeError) as found:  # of that adapter; the others are as they were
                error = found
            except BaseException as found:
                error = found
                raise
            finally:
                loop.call_soon_threadsafe(_settle, done, error)

        self._inbox.put(do)
        await done

    def _run(self, base: Path, adapters: int, rows: int, begun: "Future[None]") -> None:
        try:
            self._load(base, adapters, rows)
        except BaseException as error:  # noqa: BLE001 - raised where the writer is made
            begun.set_exception(error)
            return
        begun.set_result(None)
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


class Listening:
    """One request's answers out of the thread."""

    def __init__(self, writer: TransformersWriter, asked: "Asked") -> None:
        self._writer = writer
        self._asked = asked
        self._open = set(range(asked.samples))

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Every step of every answer; closed early, nothing more is written."""
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


def _settle(done: "asyncio.Future[None]", error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
