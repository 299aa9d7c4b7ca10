"""When two texts are too much alike. Word-based, lower case, punctuation ignored."""

import re
from collections.abc import Iterable

from mlflow_llamaduo.core.records import Pair

LEAK_GRAM = 8
LEAK_SHARE = 0.3
NEAR = 0.7


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())


def grams(text: str, size: int) -> frozenset[tuple[str, ...]]:
    """Every run of `size` words; a shorter text is one run of all its words."""
    found = words(text)
    return frozenset(tuple(found[i : i + size]) for i in range(max(1, len(found) - size + 1)))


class LeakIndex:
    """Finds the test prompts that a row would give away.

    A row leaks when it shares at least `LEAK_SHARE` of the 8-word runs of a test prompt, or of its own. In No
    Robots the two known leaks stand at 0.48 and 0.65, the next row at 0.06.
    """

    def __init__(self, test: Iterable[Pair]) -> None:
        self._tests: list[tuple[str, int, frozenset[tuple[str, ...]]]] = []
        for pair in test:
            if length := len(words(pair.instruction)):
                size = min(LEAK_GRAM, length)  # a short prompt that is quoted whole counts too
                self._tests.append((pair.id, size, grams(pair.instruction, size)))

    def leak(self, pair: Pair) -> str | None:
        """The id of a test pair that `pair` gives away, or None."""
        own = {size: grams(pair.instruction, size) for size in {size for _, size, _ in self._tests}}
        for test_id, size, theirs in self._tests:
            if len(own[size] & theirs) >= LEAK_SHARE * min(len(own[size]), len(theirs)):
                return test_id
        return None


def near_pairs(one: Pair, other: Pair) -> bool:
    """True when prompt *and* response say the same in nearly the same words.

    Prompts are compared line by line, so that two questions about one long passage stay two; equal short answers
    ("Education") to different prompts stay two as well.
    """
    return _alike(one.response, other.response) and _lines_alike(one.instruction, other.instruction)


def _lines_alike(one: str, other: str) -> bool:
    left, right = ([line for line in text.splitlines() if words(line)] for text in (one, other))
    return all(any(_alike(a, b) for b in right) for a in left) and all(any(_alike(a, b) for a in left) for b in right)


def _alike(one: str, other: str) -> bool:
    left, right = frozenset(words(one)), frozenset(words(other))
    union = left | right
    return not union or len(left & right) >= NEAR * len(union)
