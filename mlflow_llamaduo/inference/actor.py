"""What runs in each actor of the pool: an engine that finds its base, and gets its adapters as values.

It may be on another machine than the driver, and it may be started again there: nothing is loaded before it is asked,
and every question says with which adapter.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from mlflow_llamaduo.base_models import at_hand
from mlflow_llamaduo.files import unpacked
from mlflow_llamaduo.inference.engine import Chat, Engine, Sampling
from mlflow_llamaduo.quiet import hush

Files = dict[str, bytes]
"""An adapter's files by name."""

Travelling = tuple[str, Callable[[], Files]]
"""An adapter: its digest, and what fetches its files from where the driver has put them."""


@dataclass(frozen=True, slots=True)
class Duty:
    """What an actor is to load: the base by name, digest and the driver's path; `engine` and `template` by name.

    `rows` answers are computed at once, by `gpus` GPUs; where there is none, `sharing` actors share the cores.
    """

    base: tuple[str, str, str]
    engine: Literal["transformers", "vllm"]
    template: Literal["own", "chatml"]
    lora_rank: int
    rows: int
    gpus: int
    sharing: int


class EngineActor:
    """It keeps the base loaded, and changes adapters when asked for another."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._engine: Engine | None = None
        self._adapter: str | None = None
        self._folder: TemporaryDirectory[str] | None = None

    def lengths(self, adapter: Travelling | None, chats: list[Chat]) -> list[int]:
        """Tokens of each prompt."""
        return [len(ids) for ids in self._with(adapter).prompt_ids(chats)]

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns in this process. On a GPU its own model makes room; it is loaded when asked for."""
        if self._duty.gpus:
            self._engine = self._adapter = None
        return function(*arguments)

    def answer(
        self, adapter: Travelling | None, chats: list[Chat], sampling: dict[str, Any], samples: int
    ) -> list[list[tuple[str, int]]]:
        """Text and tokens of `samples` answers to each conversation."""
        answers = self._with(adapter).generate(chats, Sampling(**sampling), samples)
        return [[(a.text, a.completion_tokens) for a in row] for row in answers]

    def _with(self, adapter: Travelling | None) -> Engine:
        if self._engine is None:
            self._engine = _engine(self._duty)
        wanted = adapter[0] if adapter else None
        if wanted != self._adapter:
            self._change(self._engine, adapter)
            self._adapter = wanted
        return self._engine

    def _change(self, engine: Engine, adapter: Travelling | None) -> None:
        before, self._folder = self._folder, None
        path = None
        if adapter:
            self._folder = TemporaryDirectory(prefix="llamaduo-adapter-")
            path = str(unpacked(adapter[1](), Path(self._folder.name)))
        engine.use(path)
        if before:
            before.cleanup()


def _engine(duty: Duty) -> Engine:
    hush()
    path = str(at_hand(*duty.base))
    if duty.engine == "vllm":
        from mlflow_llamaduo.inference.vllm_engine import VllmEngine

        return VllmEngine(path, template=duty.template, lora_rank=duty.lora_rank, rows=duty.rows, gpus=duty.gpus)
    from mlflow_llamaduo.inference.transformers_engine import TransformersEngine, threads

    if duty.sharing > 1 and not duty.gpus:
        threads(max(1, (os.cpu_count() or 1) // duty.sharing))
    return TransformersEngine(path, template=duty.template)
