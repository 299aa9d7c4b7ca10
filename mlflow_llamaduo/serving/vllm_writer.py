"""Writes a replica's answers with vLLM: its asynchronous engine in a child process, adapters in numbered slots.

vLLM knows an adapter by its number, and keeps prompts that it has read by its name: so every adapter that is loaded
gets a new number and name, and what was in its slot before goes when its last answer is written. There is room for
one more than there are slots, so that vLLM never puts one out by itself: it would be read again from its files, and
vLLM has mixed adapters up that moved while they answered (vllm-project/vllm#47724).
"""

import asyncio
import itertools
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from mlflow_llamaduo.errors import ConfigError, DataError
from mlflow_llamaduo.inference.engine import Sampling
from mlflow_llamaduo.inference.vllm_engine import (
    environment,
    generation_of,
    missing,
    parameters,
    settings,
    skeleton,
)
from mlflow_llamaduo.serving.vllm_conversation import Conversation, Held

LOOK_EVERY_S = 1.0
"""While the engine is asked something about adapters, to see whether it is still there."""
ROOM_EVERY_S = 0.05


class VllmWriter:
    """A base model in vLLM with adapters on it; for one event loop.

    Args:
        base_path: the base model's folder.
        lora_rank: the highest rank of the adapters to come.
        adapters: slots for adapters.
        rows: answers that are written at once.
        gpus: GPUs that the weights are spread over; 0 computes on the CPU, in float32.

    Raises:
        ConfigError: vLLM is not installed, or takes no adapters of such a rank.
    """

    def __init__(self, base_path: str, *, lora_rank: int, adapters: int, rows: int, gpus: int) -> None:
        if problem := missing():
            raise ConfigError(problem)
        environment(gpus)
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a fork of PyTorch's threads can hang
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from mlflow_llamaduo.inference.adapters import Adapters
        from mlflow_llamaduo.inference.vllm_tether import OneGpu, SeveralGpus

        # On the CPU what the bare base answers beside adapters gets what is in the last place: it stays empty
        # (vllm-project/vllm#48421).
        loras = adapters + (1 if gpus else 2)
        told = settings(base_path, lora_rank=lora_rank, rows=rows, gpus=gpus, loras=loras)
        several = gpus > 1
        config = AsyncEngineArgs(
            **told, distributed_executor_backend="mp" if several else "uni", disable_log_stats=True
        ).create_engine_config()
        self._generation = generation_of(base_path)
        self._checked = Adapters(skeleton(base_path), slots=1)
        self._most_rank: int = told["max_lora_rank"]
        self._most = adapters
        self._held: dict[int, Held] = {}
        self._gone: list[Held] = []
        self._numbers = itertools.count(1)
        self._keys = itertools.count()
        self._loading = asyncio.Lock()
        self._engine = AsyncLLM(config, SeveralGpus if several else OneGpu, log_stats=False, log_requests=False)

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and answer may have together: the model's, or what memory holds."""
        return int(self._engine.model_config.max_model_len)

    @property
    def generation(self) -> Any:
        """The base's generation settings, or None."""
        return self._generation

    @property
    def broken(self) -> BaseException | None:
        """What ended the engine, if anything did."""
        return self._engine.dead_error if self._engine.errored else None

    @property
    def engine(self) -> Any:
        """VLLM's own object, for who measures it."""
        return self._engine

    async def load(self, slot: int, folder: Path) -> None:
        """Put an adapter into a slot; what is written by the one before is written to its end.

        Where all slots are taken, and an answer is still written by one that was replaced, it waits for that.

        Raises:
            FileNotFoundError: there is no adapter in the folder.
            DataError: it is more than plain LoRA, is not of this base, or is not for vLLM as it was started.
            BaseException: what ended the engine.
        """
        from vllm.lora.request import LoRARequest

        async with self._loading:
            await asyncio.to_thread(self._check, folder)
            while len(self._held) + len(self._gone) > self._most:
                await asyncio.sleep(ROOM_EVERY_S)
                await self._sweep()
            number = next(self._numbers)
            held = Held(LoRARequest(f"adapter-{number}", number, str(folder)))
            if problem := await self._told(self._engine.add_lora(held.lora)):
                await self._told(self._engine.remove_lora(number))  # it may be there in parts
                raise DataError(f"{folder}: vLLM does not take the adapter: {problem}") from problem
            self._empty(slot)
            self._held[slot] = held
            await self._sweep()

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
        """Ask for answers to a prompt; a KeyError if there is no adapter in the slot."""
        from vllm.sampling_params import RequestOutputKind

        told = [
            parameters(
                ids,
                sampling,
                stops=stops,
                context=self.context_tokens,
                sample=sample,
                logprobs=likeliest,
                output_kind=RequestOutputKind.DELTA,
            )
            for sample in range(samples)
        ]
        return Conversation(self._engine, next(self._keys), ids, told, None if slot is None else self._held[slot])

    def close(self) -> None:
        """End the engine's process."""
        self._engine.shutdown()

    def _check(self, folder: Path) -> None:
        """What the other engine refuses is refused here: vLLM leaves out in silence what it does not know."""
        from mlflow_llamaduo.inference.adapters import read

        adapter = read(folder)
        rank = int(adapter.config["r"])
        if rank > self._most_rank:
            raise DataError(f"{folder}: the adapter has rank {rank}, and vLLM was started for {self._most_rank}")
        self._checked.put(0, adapter)

    def _empty(self, slot: int) -> None:
        if held := self._held.pop(slot, None):
            self._gone.append(held)

    async def _sweep(self) -> None:
        """Forget the adapters that nobody uses any more."""
        for held in [held for held in self._gone if not held.used]:
            self._gone.remove(held)
            await self._told(self._engine.remove_lora(held.lora.lora_int_id))

    async def _told(self, call: Coroutine[Any, Any, object]) -> Exception | None:
        """What the engine objects to; an engine that ends meanwhile never answers, and is looked after."""
        asked = asyncio.ensure_future(call)
        while not asked.done():
            await asyncio.wait({asked}, timeout=LOOK_EVERY_S)
            if self.broken is not None:
                asked.cancel()
                raise self.broken
        problem = asked.exception()
        if problem is None or isinstance(problem, Exception):
            return problem
        raise problem
