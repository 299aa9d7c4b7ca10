"""What a local model can be asked, whichever engine computes: one protocol, two implementations.

    transformers_engine.TransformersEngine      everywhere: laptop, GPU; it also streams and can be probed
    vllm_engine.VllmEngine                      the extra `[vllm]`: many prompts on a GPU

Both read the same token ids (`chat_template.prompt_ids`), stop at the same tokens and say the same of an answer.
Nothing heavy is imported here, so that callers may name the types.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Chat = Sequence[dict[str, str]]
"""A conversation: messages with `role` and `content`, the last one the user's."""

WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode: temperature 0 is greedy; lengths in tokens."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer: its text, tokens read and written (the end token counts), and `stop` or `length`."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token; if asked for, the natural logarithm of its probability at temperature 1, and of the likeliest ones."""

    token: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What an answer (`sample` of request `key`) got: a token, or its end without one."""

    key: int
    sample: int
    chosen: Chosen
    ended: bool


class Engine(Protocol):
    """A base model with at most one adapter."""

    def use(self, adapter_path: str | None) -> None:
        """Answer with this adapter from now on, or with the bare base.

        Raises:
            FileNotFoundError: there is no adapter in the folder.
        """

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and answer may have together."""

    def prompt_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids of each prompt as the model reads them, the opening of the answer included."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling, samples: int = 1) -> list[list[Generated]]:
        """`samples` answers to each conversation, in the order of the conversations."""


def adapter_rank(config: str | bytes) -> int:
    """The rank of an adapter, by its adapter_config.json."""
    return int(json.loads(config)["r"])


def stop_tokens(tokenizer: Any, generation: Any) -> frozenset[int]:
    """What ends an answer: the tokenizer's end token, and those that the base's own generation settings name."""
    named = generation.eos_token_id if generation is not None else None
    more = [named] if isinstance(named, int) else named or []
    return frozenset(int(token) for token in (tokenizer.eos_token_id, *more) if token is not None)
