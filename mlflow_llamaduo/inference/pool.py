"""Local models on Ray actors: prompts go out in batches of like length, responses come back in order."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.exceptions import RayError

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.config import Inference
from mlflow_llamaduo.core.records import Adapter, Message, Pair, PairSet, Response
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.quiet import hush


class _Actor:
    """A Ray actor: it keeps the base loaded and changes adapters when asked for another."""

    def __init__(self, base_path: str) -> None:
        hush()
        from mlflow_llamaduo.inference.transformers_engine import TransformersEngine

        self._engine = TransformersEngine(base_path)
        self._adapter: str | None = None

    def answer(
        self, adapter: str | None, chats: list[list[dict[str, str]]], sampling: dict[str, Any], samples: int
    ) -> list[list[tuple[str, int]]]:
        """Text and tokens of `samples` answers to each conversation."""
        from mlflow_llamaduo.inference.engine import Sampling

        if adapter != self._adapter:
            self._engine.use(adapter)
            self._adapter = adapter
        answers = self._engine.generate(chats, Sampling(**sampling), samples)
        return [[(a.text, a.completion_tokens) for a in row] for row in answers]


class EnginePool:
    """Answers prompts with the base model or an adapter on it.

    The actor lives from the first call to `release`: on CPU it is kept over the rounds, so that a round does not
    pay for loading again; on GPU it must make room for training.
    """

    def __init__(self, base: BaseModelFolder, settings: Inference) -> None:
        self._base = base
        self._settings = settings
        self._actor: Any = None

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
            StageError: the model failed on a batch.
        """
        settings = self._settings
        batch_prompts = max(1, settings.batch_size // settings.responses_per_prompt)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts.pairs[i].instruction))
        batches = [order[start : start + batch_prompts] for start in range(0, len(order), batch_prompts)]
        answers: dict[int, list[tuple[str, int]]] = {}
        try:
            actor = self._ready()
            open_calls = {
                actor.answer.remote(
                    adapter.path if adapter else None,
                    [_chat(prompts.pairs[i], shots) for i in batch],
                    self._sampling(number),
                    settings.responses_per_prompt,
                ): batch
                for number, batch in enumerate(batches)
            }
            while open_calls:
                (finished,), _ = ray.wait(list(open_calls))
                batch = open_calls.pop(finished)
                answers.update(zip(batch, ray.get(finished), strict=True))
                done(len(batch))
        except RayError as error:
            who = adapter.path if adapter else self._base.name
            raise StageError(f"{who} failed to answer: {str(error).strip().splitlines()[-1]}") from error
        return tuple(
            _response(pair, sample, text, tokens)
            for i, pair in enumerate(prompts)
            for sample, (text, tokens) in enumerate(answers[i])
        )

    def release(self) -> None:
        """End the actor."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def yield_gpu(self) -> None:
        """End the actor if it holds a GPU that training may need."""
        if self._settings.gpus:
            self.release()

    def _ready(self) -> Any:
        if self._actor is None:
            actor = ray.remote(num_cpus=0, num_gpus=self._settings.gpus)(_Actor)
            self._actor = actor.remote(str(self._base.path))
        return self._actor

    def _sampling(self, batch: int) -> dict[str, Any]:
        settings = self._settings
        return {
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": settings.seed + batch,
        }


def _chat(pair: Pair, shots: Sequence[Pair]) -> list[dict[str, str]]:
    """The examples' turns go after a system message that opens the prompt, as chat templates want it."""
    turns = [message for shot in shots for message in (*shot.prompt, Message("assistant", shot.response))]
    system = [message for message in pair.prompt[:1] if message.role == "system"]
    turns = [message for message in turns if message.role != "system"]
    return [asdict(message) for message in (*system, *turns, *pair.prompt[len(system) :])]


def _response(pair: Pair, sample: int, text: str, tokens: int) -> Response:
    return Response(pair.id, sample, pair.instruction, pair.response, text, tokens, pair.category, pair.source)
