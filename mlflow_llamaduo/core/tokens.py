"""Many texts as arrays of hashed words, so that a quarter of a million rows are compared in seconds.

A word's hash is the same in every process and on every machine: what was reckoned from it can be kept on disk.
"""

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlflow_llamaduo.core.text import words

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]

STEP = np.uint64(0x9E3779B97F4A7C15)
"""Mixes hashes: odd, so that no bit of one is lost in the product."""
_VOCABULARY = 2_000_000


@dataclass(frozen=True)
class Tokens:
    """The words of n texts, one after the other: text i has `hashes[starts[i]:starts[i + 1]]`."""

    hashes: Hashes
    starts: Numbers

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def rows(self) -> Numbers:
        """The number of the text that each word belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def windows(self, size: int) -> tuple[Hashes, Numbers]:
        """The hash of every run of `size` words within one text, and the place of its first word."""
        count = len(self.hashes) - size + 1
        if count <= 0:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        total = np.zeros(count, np.uint64)
        for offset in range(size):
            total = total * STEP + self.hashes[offset : offset + count]
        places = np.flatnonzero(self.rows[:count] == self.rows[size - 1 :])
        return total[places], places


def tokenize(texts: Iterable[str]) -> Tokens:
    """The words of texts as hashes of 64 bits."""
    hashes, starts, known = array("Q"), array("q", [0]), _VOCABULARY_OF.__getitem__
    for text in texts:
        hashes.extend(map(known, words(text)))
        starts.append(len(hashes))
    if len(_VOCABULARY_OF) > _VOCABULARY:  # hostile or endless text must not fill the memory
        _VOCABULARY_OF.clear()
    return Tokens(np.frombuffer(hashes, np.uint64), np.frombuffer(starts, np.int64))


class _Vocabulary(dict[str, int]):
    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value


_VOCABULARY_OF = _Vocabulary()
