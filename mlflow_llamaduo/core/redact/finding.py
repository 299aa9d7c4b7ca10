"""What a detector gives back, and the words it looks for near a number.

A detector is a function from a text to findings. It reads text that `plain.py` has made plain, in which findings of
earlier detectors are covered by `<` NULs `>`: both characters end every pattern, as the placeholders will.
"""

import re
from dataclasses import dataclass, field

REACH = 40
PLACEHOLDER_END = re.compile(r"(?:\0|_\d+)>")


@dataclass(frozen=True, slots=True)
class Finding:
    """`text[start:end]` is a value of some kind; equal values have equal keys, however they are written.

    The key is the value itself: it is kept out of `repr`, so that no log and no traceback shows it.
    """

    start: int
    end: int
    key: str = field(repr=False)


def word_before(text: str, start: int, words: re.Pattern[str]) -> bool:
    """Whether one of `words` stands in the `REACH` characters before `start`.

    The view ends at a placeholder, and at one that is to come: else `<PHONE_1>` would be such a word, and a second
    pass, in which values have other lengths, would see further than the first.
    """
    first = max(0, start - REACH)
    for match in PLACEHOLDER_END.finditer(text, first, start):
        first = match.end()
    return words.search(text, first, start) is not None
