"""Generation with transformers: one base, one adapter at a time, on the GPU if there is one.

The same class answers the test prompts, the pyfunc model and the Ray Serve replica, so what the gate judged is
what is served: unquantized base, adapter on top, the tokenizer and template that the adapter carries.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from mlflow_llamaduo.inference.adapters import Adapters
from mlflow_llamaduo.inference.decode import decode
from mlflow_llamaduo.inference.engine import Chat, Generated, Sampling
from mlflow_llamaduo.inference.voice import Voice


class TransformersEngine:
    """A base model with at most one adapter.

    Args:
        base_path: the base model's folder.
        adapter_path: the adapter's folder; its tokenizer and template are used.
        template: the bare base's chat template: its `own`, or `chatml` for a base that has none.
    """

    def __init__(
        self, base_path: str, adapter_path: str | None = None, *, template: Literal["own", "chatml"] = "own"
    ) -> None:
        self._base = load_base(base_path)
        self._base_path = base_path
        self._template: Literal["own", "chatml"] = template
        self._adapters = Adapters(self._base, slots=1)
        self._slot: int | None = None
        self.use(adapter_path)

    def use(self, adapter_path: str | None) -> None:
        """Answer with this adapter from now on, or with the bare base.

        Raises:
            FileNotFoundError: there is no adapter in the folder.
            DataError: it is more than plain LoRA, or is not of this base.
        """
        if adapter_path is not None:
            self._adapters.load(0, Path(adapter_path))
        self._slot = None if adapter_path is None else 0
        self._adapters.use([self._slot])
        bare = None if adapter_path else self._template
        self._voice = Voice(adapter_path or self._base_path, self._base.generation_config, bare)

    @property
    def model(self) -> Any:
        """The loaded model, with the adapter where one is in use: parity looks at what is loaded."""
        return self._base

    @property
    def adapters(self) -> Adapters:
        """What is on the base: the adapter in use is in slot 0."""
        return self._adapters

    @property
    def lora(self) -> str:
        """Rank, alpha, factor and place of the adapter in use."""
        return "no adapter" if self._slot is None else self._adapters.told(self._slot)

    def bare(self) -> AbstractContextManager[None]:
        """Within the block the base answers without its adapter."""
        return self._adapters.rows([None])

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that prompts are read with."""
        return self._voice.tokenizer

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and answer may have together."""
        return context_of(self._base)

    def prompt_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids of each prompt as the model reads them, the opening of the answer included."""
        return [self._voice.prompt_ids(chat) for chat in chats]

    def generate(self, chats: Sequence[Chat], sampling: Sampling, samples: int = 1) -> list[list[Generated]]:
        """`samples` answers to each conversation, all in one batch: take conversations of like length.

        A prompt that fills the context leaves no room: its answers are empty, and end for `length`.
        """
        prompts = self.prompt_ids(chats)
        asked = [ids for ids in prompts if len(ids) < self.context_tokens]
        written: list[list[int]] = [[] for _ in range(len(asked) * samples)]
        for step in self._decode(asked, sampling, samples):
            for row, token in step.items():
                written[row].append(token)
        rows = iter(written)
        return [
            [self._generated(ids, next(rows) if len(ids) < self.context_tokens else []) for _ in range(samples)]
            for ids in prompts
        ]

    def _decode(self, prompts: list[list[int]], sampling: Sampling, samples: int) -> Iterator[dict[int, int]]:
        if not prompts:
            return iter(())
        return decode(self._base, prompts, sampling, samples, self._voice.stops, self.context_tokens)

    def _generated(self, prompt: list[int], ids: list[int]) -> Generated:
        finish = "stop" if ids and ids[-1] in self._voice.stops else "length"
        return Generated(self._voice.text(ids).strip(), len(prompt), len(ids), finish)


def load_base(path: str) -> Any:
    """A base model, ready to answer: in bfloat16 on a GPU that computes in it, else in float32."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    base = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16 if bf16 else torch.float32, use_safetensors=True
    )
    return base.to("cuda" if cuda else "cpu").eval()


def context_of(base: Any) -> int:
    """The most tokens that prompt and answer may have together."""
    return int(base.config.max_position_embeddings)


def threads(count: int) -> None:
    """Compute with so many cores in this process."""
    torch.set_num_threads(count)
