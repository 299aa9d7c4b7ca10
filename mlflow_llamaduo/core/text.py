"""Words and sentences of a text, lower case and punctuation ignored; and a text as everything can hold it."""

import re
from dataclasses import dataclass

_LETTER = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f"  # kana, Han, Thai: written without spaces
_WORD = re.compile(rf"[^\W{_LETTER}]+|[{_LETTER}]")
_PLAIN = str.maketrans(
    {letter: letter.lower() if letter.isalnum() or letter == "_" else " " for letter in map(chr, range(128))}
)
_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+|\n+|(?<=[\u3002\uff01\uff1f])")

_CLOSING = " \t\"')*_"
_ASKS = ("?", "\uff1f")
_LOGIN = re.compile(r"(?<=://)[^/?#\s]*@")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""PostgreSQL takes no NUL, a page no control character, and the others move a terminal's cursor."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """The words of a sentence or a line; `question` when it ends with a question mark."""

    words: tuple[str, ...]
    question: bool


def words(text: str) -> list[str]:
    """The words of a text, in lower case; where a script has no spaces, every letter counts as one."""
    return text.translate(_PLAIN).split() if text.isascii() else _WORD.findall(text.lower())  # half the time


def sentences(text: str) -> list[Sentence]:
    """Each sentence or line that has words."""
    parts = _END.split(text)
    return [Sentence(tuple(found), part.rstrip(_CLOSING).endswith(_ASKS)) for part in parts if (found := words(part))]


def storable(text: str) -> str:
    """The text as every database, page and picture takes it: half characters and control characters are replaced."""
    return _CONTROL.sub("\ufffd", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def without_login(text: str) -> str:
    """The text with each address in it as it is, but for the name and password before its host."""
    return _LOGIN.sub("", text)
