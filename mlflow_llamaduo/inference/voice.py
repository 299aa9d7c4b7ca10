"""How an adapter reads and speaks: the tokenizer and chat template that it was trained with, and where it ends.

Adapters that share a base may differ in it, so each has its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import AutoTokenizer

from mlflow_llamaduo import chat_template
from mlflow_llamaduo.inference.engine import Chat, stop_tokens


class Voice:
    """A tokenizer with its template.

    Args:
        folder: the adapter's, or the bare base's.
        generation: the base's generation settings, which may name more tokens that end an answer; or None.
        template: for a bare base: its `own`, or `chatml` where it has none; an adapter's folder has its own always.
    """

    def __init__(self, folder: str | Path, generation: Any, template: Literal["own", "chatml"] | None = None) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        if template is not None:
            chat_template.with_template(self.tokenizer, template)
        self.stops: frozenset[int] = stop_tokens(self.tokenizer, generation)

    def prompt_ids(self, chat: Chat) -> list[int]:
        """The token ids of a prompt as the model reads them, the opening of the answer included.

        Raises:
            DataError: the template refuses these roles in this order.
        """
        return chat_template.prompt_ids(self.tokenizer, chat)

    def text(self, ids: Sequence[int]) -> str:
        """What token ids say, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def token_text(self, token: int) -> str:
        """One token, a special one too."""
        return str(self.tokenizer.decode([token], skip_special_tokens=False))
