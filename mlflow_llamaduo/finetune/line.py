"""The line between the driver, who orders fine-tunings, and Ray Train's workers, who do one after the other."""

import asyncio
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One fine-tuning: plain values and Ray references, so that any node can read it.

    `key` names it, so that a checkpoint says whose it is. `train` and `dev` are references to lists of
    `{"id", "prompt": [messages], "response": text}`; dev is in the order in which the trained model is asked.
    """

    key: str
    recipe: dict[str, Any]
    train: Any
    dev: Any


@dataclass(frozen=True, slots=True)
class Trained:
    """What comes of a job: the adapter's files by name, its metrics, the mask of three rows, ids of who was asked."""

    files: dict[str, bytes]
    metrics: dict[str, Any]
    mask: str
    probed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps of the job that is worked on; `done` and `refused` once it has ended."""

    steps: int
    said: tuple[str, ...]
    done: bool
    refused: str | None


class Line:
    """A Ray actor. Jobs are numbered from 0; a worker that comes back begins with the first that is not done."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._trained: dict[int, Trained] = {}
        self._refused: dict[int, str] = {}
        self._said: list[str] = []
        self._steps = 0
        self._closed = False
        self._controllers: list[Any] = []
        self._changed = asyncio.Condition()

    async def put(self, job: Job) -> int:
        """Another job; its number."""
        async with self._changed:
            self._jobs.append(job)
            self._steps, self._said = 0, []
            self._changed.notify_all()
            return len(self._jobs) - 1

    async def close(self) -> None:
        """There will be no more jobs."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def controlled_by(self, controllers: list[Any]) -> None:
        """Ray Train's controllers, as actors; in a list, since an argument that is a reference itself is awaited."""
        self._controllers = controllers

    async def controllers(self) -> list[Any]:
        """Those that have made themselves known."""
        return self._controllers

    async def first_open(self) -> int:
        """The number of the first job that has not ended."""
        return len(self._trained) + len(self._refused)

    async def job(self, number: int) -> Job | None:
        """A job, as soon as it is there; None when the line is closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._jobs) > number)
            return self._jobs[number] if len(self._jobs) > number else None

    async def step(self, steps: int) -> None:
        """So many steps of the job are done, those before a resumption included."""
        self._steps = steps

    async def say(self, line: str) -> None:
        """Something that a person should know."""
        self._said.append(line)

    async def finish(self, number: int, trained: Trained) -> None:
        """A job has ended well."""
        self._trained[number] = trained

    async def refuse(self, number: int, why: str) -> None:
        """A job cannot be done, however often it is tried."""
        self._refused[number] = why

    async def progress(self, number: int) -> Progress:
        """How far a job is, and what was said since the last time."""
        said, self._said = tuple(self._said), []
        return Progress(self._steps, said, number in self._trained, self._refused.get(number))

    async def take(self, number: int) -> Trained:
        """The result of a job."""
        return self._trained[number]
