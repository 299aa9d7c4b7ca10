"""The answers to one request out of vLLM's asynchronous engine, token by token."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from mlflow_llamaduo.inference.engine import Chosen, Step


@dataclass(eq=False, slots=True)
class Held:
    """An adapter that vLLM holds, by vLLM's LoRARequest, and how many answers it writes."""

    lora: Any
    used: int = 0


class Conversation:
    """One request's answers out of vLLM, where each is a request of its own.

    Args:
        engine: vLLM's AsyncLLM.
        key: this request's number.
        ids: the prompt's tokens.
        told: SamplingParams of each answer.
        held: the adapter that answers; None is the bare base.
    """

    def __init__(self, engine: Any, key: int, ids: list[int], told: list[Any], held: Held | None) -> None:
        self._engine = engine
        self._key = key
        self._ids = ids
        self._told = told
        self._held = held
        self._open = set(range(len(told)))
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Every step of every answer; closed early, vLLM writes no more of it.

        Raises:
            BaseException: what ended the engine, or an answer before its time.
        """
        heard = asyncio.Queue[Step | BaseException]()
        self._tasks = {sample: self._started(sample, heard) for sample in sorted(self._open)}
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
            await self._end()

    def stop(self, sample: int) -> None:
        """One of the answers has said enough."""
        if sample in self._open:
            self._open.discard(sample)
            if sample in self._tasks:
                self._tasks[sample].cancel()

    def _started(self, sample: int, heard: asyncio.Queue[Step | BaseException]) -> asyncio.Task[None]:
        def over(task: asyncio.Task[None]) -> None:
            if self._held is not None:
                self._held.used -= 1
            if not task.cancelled() and (error := task.exception()):
                heard.put_nowait(error)

        if self._held is not None:
            self._held.used += 1
        task = asyncio.create_task(self._listen(sample, heard))
        task.add_done_callback(over)
        return task

    async def _listen(self, sample: int, heard: asyncio.Queue[Step | BaseException]) -> None:
        from vllm.inputs import tokens_input

        lora = self._held.lora if self._held is not None else None
        made = self._engine.generate(
            tokens_input(self._ids), self._told[sample], self._name(sample), lora_request=lora
        )
        ended = False
        async with aclosing(made) as outputs:  # closed early, vLLM aborts it
            async for output in outputs:
                (got,) = output.outputs
                for place, token in enumerate(got.token_ids, 1):
                    ended = output.finished and place == len(got.token_ids)
                    likeliest = self._told[sample].logprobs
                    chosen = (
                        Chosen(token) if likeliest is None else _chosen(token, got.logprobs[place - 1], likeliest)
                    )
                    heard.put_nowait(Step(self._key, sample, chosen, ended))
        if not ended:
            raise RuntimeError("vLLM ended an answer before its time")

    async def _end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        # One that was cancelled while it was being handed over is known to vLLM, and not to what was cancelled.
        await self._engine.abort([self._name(sample) for sample in self._tasks])

    def _name(self, sample: int) -> str:
        return f"{self._key}-{sample}"


def _chosen(token: int, told: dict[int, Any], likeliest: int) -> Chosen:
    """A token with the logarithms that vLLM tells: its own, and those of the likeliest by their rank."""
    ranked = sorted(told.items(), key=lambda item: item[1].rank)[:likeliest]
    return Chosen(token, float(told[token].logprob), tuple((other, float(it.logprob)) for other, it in ranked))
