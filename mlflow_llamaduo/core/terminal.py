"""Text by strangers and by models, made fit to be printed.

An escape sequence moves the cursor or sets the window's title, a right-to-left override turns a line round, and a
line break or a long run of blanks makes a line that looks like ours.
"""

import re
from unicodedata import category

BREAK = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
JOINERS = "\u200c\u200d"
"""Zero width, and needed: in Persian, and between the parts of an emoji."""


def plain(text: str, most: int) -> str:
    """One line of a text, that moves no cursor: a line break is `⏎`, another control or format character `�`.

    Args:
        text: whatever somebody wrote, or a model.
        most: characters that are kept; of a longer text it is said how many there were.
    """
    kept = re.sub(r"\s+", " ", BREAK.sub("⏎", text[:most]))
    kept = "".join(map(_visible, kept))
    return kept if len(text) <= most else f"{kept}… ({len(text)} characters)"


def _visible(character: str) -> str:
    """Control, format, surrogate, private and unassigned characters are the C categories of Unicode."""
    return "\ufffd" if category(character).startswith("C") and character not in JOINERS else character
