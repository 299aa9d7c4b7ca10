"""The rows of a training as tokens: tokenized once, one flat array, which workers share in Ray's object store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.finetune.tokens import Row, TooLong, encode

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows one behind the other: `ids` [tokens], `starts` [rows + 1], `prompts` [rows], tokens that are not learned.

    Arrays, so that workers on one node read the same memory instead of a copy each.
    """

    ids: Integers
    starts: Integers
    prompts: Integers

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "TokenRows":
        """The rows in their order."""
        return cls(
            np.fromiter((token for row in rows for token in row.ids), np.int64),
            np.cumsum([0, *(len(row.ids) for row in rows)], dtype=np.int64),
            np.array([row.prompt for row in rows], np.int64),
        )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def tokens(self) -> int:
        """All tokens of all rows; there is no padding among them."""
        return len(self.ids)

    def row(self, place: int) -> tuple[Integers, int]:
        """The ids of a row, and how many of them are the prompt's."""
        return self.ids[self.starts[place] : self.starts[place + 1]], int(self.prompts[place])


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Train and dev rows, and a few words on those that were shortened or left out."""

    train: TokenRows
    dev: TokenRows
    said: tuple[str, ...]
    first: tuple[Row, ...]


def tokenized(
    tokenizer: Any,
    train: Sequence[dict[str, Any]],
    dev: Sequence[dict[str, Any]],
    *,
    max_length: int,
    too_long: Literal["shorten", "reject"],
) -> Tokenized:
    """Pairs (`{"prompt": [messages], "response": text}`) as tokens.

    Raises:
        DataError: no train pair, or no dev pair, fits into `max_length`.
    """
    said: list[str] = []
    sides: dict[str, list[Row]] = {}
    for name, pairs in (("train", train), ("dev", dev)):
        found = [encoded(tokenizer, pair, max_length, too_long) for pair in pairs]
        rows = [row for row in found if isinstance(row, Row)]
        left = [row for row in found if isinstance(row, TooLong)]
        if not rows:
            why = f" can be learned at finetune.max_length {max_length}: {left[0].reason}" if left else " are there"
            raise DataError(f"none of {len(pairs)} {name} pairs{why}")
        if left:
            said.append(f"{len(left)} of {len(pairs)} {name} pairs are left out: {left[0].reason}")
        if shortened := sum(1 for row in rows if row.dropped):
            said.append(
                f"{shortened} of {len(pairs)} {name} prompts are shortened to fit finetune.max_length {max_length}"
            )
        sides[name] = rows
    return Tokenized(TokenRows.of(sides["train"]), TokenRows.of(sides["dev"]), tuple(said), tuple(sides["train"][:3]))


def encoded(
    tokenizer: Any, pair: dict[str, Any], max_length: int, too_long: Literal["shorten", "reject"]
) -> Row | TooLong:
    """One pair as tokens, or why it cannot be learned."""
    try:
        return encode(tokenizer, pair["prompt"], pair["response"], max_length=max_length, too_long=too_long)
    except DataError as error:  # a template may refuse the roles of a row; the others are fine
        return TooLong(str(error))
