"""Local models on Ray actors: prompts go out in batches of like length, responses come back in order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.config import Inference
from mlflow_llamaduo.core.records import Adapter, Message, Pair, PairSet, Response
from mlflow_llamaduo.errors import LlamaDuoError, StageError
from mlflow_llamaduo.files import packed
from mlflow_llamaduo.inference.actor import Duty, EngineActor, Travelling
from mlflow_llamaduo.inference.engine import Chat

TRIES = 3
"""How often a batch is asked when the actor dies over it; Ray starts the actor anew, elsewhere if it must."""

VLLM_FILL = 8
"""vLLM packs answers itself: its batches are so many times what it computes at once, that it seldom runs dry."""

Answers = list[list[tuple[str, int]]]


class EnginePool:
    """Answers prompts with the base model or an adapter on it.

    The actors live from the first call to `release`: on CPU they are kept over the rounds, so that a round does not
    pay for loading again; on GPU they must make room for training. The batches are the same whatever the number of
    actors, and so are the answers.

    Args:
        base: the base model; actors on other machines find it by name, and check the digest.
        settings: engine, actors, GPUs, how to sample.
        template: the bare base's chat template.
        lora_rank: the highest rank that adapters are expected to have; vLLM makes room for it.
    """

    def __init__(
        self,
        base: BaseModelFolder,
        settings: Inference,
        *,
        template: Literal["own", "chatml"] = "own",
        lora_rank: int = 64,
    ) -> None:
        self._base = base
        self._settings = settings
        self._template: Literal["own", "chatml"] = template
        self._lora_rank = lora_rank
        self._actors: list[Any] = []
        self._sent: tuple[str, Any] | None = None

    def answer(
        self,
        prompts: PairSet,
        adapter: Adapter | None,
        *,
        done: Callable[[int], object],
        shots: Sequence[Pair] = (),
    ) -> tuple[Response, ...]:
        """K responses to each prompt, in the order prompt, sample.

        Args:
            prompts: the pairs whose prompts are asked; their responses are the references.
            adapter: the adapter to answer with, or None for the bare base.
            done: told the number of prompts of every batch that has ended.
            shots: pairs that stand before every prompt as examples.

        Raises:
            StageError: the model failed on a batch, or its actor died over one too often.
        """
        answers: dict[int, list[tuple[str, int]]] = {}
        chats: list[Chat] = [_chat(pair, shots) for pair in prompts]
        try:
            sent = self._travelling(adapter)
            for batch, made in self._asked(sent, chats):
                answers.update(zip(batch, made, strict=True))
                done(len(batch))
        except RayError as error:
            self.release()
            raise _failed(error, adapter.path if adapter else self._base.name) from error
        return tuple(
            _response(pair, sample, text, tokens)
            for i, pair in enumerate(prompts)
            for sample, (text, tokens) in enumerate(answers[i])
        )

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function` returns in the process of an engine: it has the model's libraries, and the GPU if any.

        Raises:
            LlamaDuoError: as the function raises it.
            StageError: it raised something else, or the process died.
        """
        alone = self._settings.engine == "vllm"  # it takes nearly all of a GPU's memory, and gives none back
        if alone:
            self.release()
        try:
            return ray.get(self._ready()[0].run.remote(function, *arguments))
        except RayError as error:
            raise _failed(error, function.__name__) from error
        finally:
            if alone:
                self.release()

    def release(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._sent = [], None

    def _asked(self, adapter: Travelling | None, chats: list[Chat]) -> Iterator[tuple[list[int], Answers]]:
        """Each batch and its answers as they come: one batch an actor, the longest prompts first."""
        free = self._ready()
        lengths = ray.get(free[0].lengths.remote(adapter, chats))
        waiting = batches(lengths, self._prompts_at_once())
        open_calls: dict[Any, tuple[Any, list[int]]] = {}
        while waiting or open_calls:
            while waiting and free:
                actor, batch = free.pop(), waiting.pop(0)
                call = actor.answer.remote(adapter, [chats[i] for i in batch], self._sampling(), self._samples)
                open_calls[call] = actor, batch
            (finished,), _ = ray.wait(list(open_calls))
            actor, batch = open_calls.pop(finished)
            yield batch, ray.get(finished)
            free.append(actor)

    def _ready(self) -> list[Any]:
        settings = self._settings
        if not self._actors:
            duty = Duty(
                (self._base.name, self._base.digest, str(self._base.path)),
                settings.engine,
                self._template,
                self._lora_rank,
                settings.batch_size,
                settings.gpus,
                settings.actors,
            )
            kind = {"accelerator_type": settings.accelerator_type} if settings.accelerator_type else {}
            actor = ray.remote(
                # No CPU is asked for where there is no GPU: training and answering take turns on the same ones.
                num_cpus=1 if settings.gpus else 0,
                num_gpus=settings.gpus,
                max_restarts=-1,
                max_task_retries=TRIES - 1,
                **kind,
            )(EngineActor)
            self._actors = [actor.remote(duty) for _ in range(settings.actors)]
        return list(self._actors)

    def _travelling(self, adapter: Adapter | None) -> Travelling | None:
        """The adapter in the object store, put there once; actors that have it already do not fetch it."""
        if adapter is None:
            return None
        if self._sent is None or self._sent[0] != adapter.digest:
            files = packed(Path(adapter.path))
            self._make_room(files)
            self._sent = adapter.digest, ray.put(files)
        return adapter.digest, partial(ray.get, self._sent[1])

    def _make_room(self, files: dict[str, bytes]) -> None:
        if self._settings.engine == "vllm":
            from mlflow_llamaduo.inference.engine import ADAPTER_CONFIG, adapter_rank

            if (rank := adapter_rank(files[ADAPTER_CONFIG])) > self._lora_rank:
                self.release()
                self._lora_rank = rank

    @property
    def _samples(self) -> int:
        return self._settings.responses_per_prompt

    def _prompts_at_once(self) -> int:
        rows = self._settings.batch_size * (VLLM_FILL if self._settings.engine == "vllm" else 1)
        return max(1, rows // self._samples)

    def _sampling(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": settings.seed,
        }


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of `size` prompts of like length, the longest first, so that the end is short.

    Args:
        lengths: tokens of each prompt.
        size: prompts in a batch; the last has what is left.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _failed(error: RayError, who: str) -> LlamaDuoError:
    """An error of our own as it was raised over there; of others the line that says what was wrong."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, LlamaDuoError):
        return error.cause
    if isinstance(error, (ActorDiedError, ActorUnavailableError)):
        return StageError(
            f"{who}: the process that answers with it died {TRIES} times over one batch, most likely for want of "
            "memory: set a smaller inference.batch_size or fewer inference.actors"
        )
    return StageError(f"{who} failed to answer: {str(error).strip().splitlines()[-1]}")


def _chat(pair: Pair, shots: Sequence[Pair]) -> list[dict[str, str]]:
    """The examples' turns go after a system message that opens the prompt, as chat templates want it."""
    turns = [message for shot in shots for message in (*shot.prompt, Message("assistant", shot.response))]
    system = [message for message in pair.prompt[:1] if message.role == "system"]
    turns = [message for message in turns if message.role != "system"]
    return [asdict(message) for message in (*system, *turns, *pair.prompt[len(system) :])]


def _response(pair: Pair, sample: int, text: str, tokens: int) -> Response:
    return Response(pair.id, sample, pair.instruction, pair.response, text, tokens, pair.category, pair.source)
