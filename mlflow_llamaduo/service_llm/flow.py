"""Many requests through few places: taken lazily, each asked once, answers as they finish."""

import asyncio
import gc
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress

from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request

Answer = Reply | Failure

ALONE_S = 3.0
"""How long the others wait for the first call."""
AT_ONCE = 256
"""Stored replies that are handed out before the network has its turn."""


class Flow:
    """One `complete_many` under way: what is open, and who waits for it.

    Args:
        requests: taken from as places come free.
        key: what makes two requests the same one.
        stored: the reply to a key that was asked before, or None.
        ask: asks for one reply; it is stored when this returns.
        concurrency: how many may be open at once.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        *,
        key: Callable[[Request], str],
        stored: Callable[[str], Reply | None],
        ask: Callable[[str, Request], Coroutine[None, None, Answer]],
        concurrency: int,
    ) -> None:
        self._key = key
        self._stored = stored
        self._ask = ask
        self._concurrency = concurrency
        self._numbered = enumerate(requests)
        self._waiting: dict[str, list[int]] = {}
        self._running: dict[asyncio.Task[Answer], str] = {}
        self._ended: asyncio.Queue[asyncio.Task[Answer]] = asyncio.Queue()
        self._more = True
        self._alone_until = math.inf
        self.used_up: BudgetError | None = None

    @property
    def over(self) -> bool:
        """Nothing is open, and nothing is to come."""
        return not (self._more or self._running)

    def pull(self) -> list[tuple[int, Answer]]:
        """Take requests while there are places; those that were answered before are the result."""
        stored: list[tuple[int, Answer]] = []
        for _ in range(AT_ONCE):
            if not self._more or len(self._running) >= self._places:
                break
            if (item := next(self._numbered, None)) is None:
                self._more = False
            elif (reply := self._begin(*item)) is not None:
                stored.append((item[0], reply))
        return stored

    async def collect(self, *, wait: bool) -> list[tuple[int, Answer]]:
        """The answers that have come in; with `wait`, at least one where anything is open."""
        if not self._running:
            return []
        tasks = []
        if wait:
            patience = self._alone_until - time.monotonic()
            with suppress(TimeoutError):
                tasks.append(await asyncio.wait_for(self._ended.get(), patience if patience > 0 else None))
        while not self._ended.empty():
            tasks.append(self._ended.get_nowait())
        return [(index, answer) for task in tasks for index, answer in self._end(task)]

    async def close(self) -> None:
        """Cancel what is open."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def _places(self) -> int:
        """The first call goes alone, for a while: it shows whether the key is good, and loads what litellm needs."""
        return 1 if time.monotonic() < self._alone_until else self._concurrency

    def _begin(self, index: int, request: Request) -> Reply | None:
        key = self._key(request)
        if key in self._waiting:
            self._waiting[key].append(index)
        elif (reply := self._stored(key)) is not None:
            return reply
        else:
            self._alone_until = min(self._alone_until, time.monotonic() + ALONE_S)
            self._waiting[key] = [index]
            task = asyncio.create_task(self._ask(key, request))
            self._running[task] = key
            task.add_done_callback(self._ended.put_nowait)
        return None

    def _end(self, task: asyncio.Task[Answer]) -> list[tuple[int, Answer]]:
        indices = self._waiting.pop(self._running.pop(task))
        self._alone_until = 0.0
        if isinstance(error := task.exception(), BudgetError):
            self._more, self.used_up = False, error  # what is open is paid for: it may end
            return []
        answer = task.result()
        return [(index, answer) for index in indices]


def drive(answers: AsyncGenerator[list[tuple[int, Answer]], None]) -> Iterator[list[tuple[int, Answer]]]:
    """An async iterator as a plain one; closing it closes the other and its event loop."""
    with asyncio.Runner() as runner:
        try:
            while True:
                yield runner.run(_next(answers))
        except StopAsyncIteration:
            return
        finally:
            runner.run(_close(answers))


async def _next(answers: AsyncGenerator[list[tuple[int, Answer]], None]) -> list[tuple[int, Answer]]:
    return await anext(answers)


async def _close(answers: AsyncGenerator[list[tuple[int, Answer]], None]) -> None:
    await answers.aclose()


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Collect cycles more rarely for the length of the block: litellm makes thousands of objects a call.

    Python's default, every 700 objects, costs a tenth to a fifth of a call's time (benchmarks/service_llm.py).
    """
    before = gc.get_threshold()
    gc.set_threshold(20_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
