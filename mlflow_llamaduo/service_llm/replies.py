"""Reading the JSON that a service LLM wrote, in whatever wrapping it came.

Calling and reading are apart: a better reader needs no new call. json-repair does the mending (fences, prose
around, cut ends); we only say which object is wanted, whose it is, and what a score is.

A reply may quote what it was asked about, after its own answer too, and what it was asked about may hold a finished
answer. So an object that stands there is never the reply's own; and where something like the wanted object stands
there, broken JSON is not mended: a quote in pieces would be mended into an answer.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from json_repair import repair_json

_BROKEN_OBJECTS = 2_000
"""Objects that begin and are none, in one text: more are nobody's reply. 100 KB of `{"a":` took 2 s."""
_MENDED_CHARACTERS = 100_000
_LOOKS = 12
"""How often json-repair may look at each character. JSON that was cut takes 8, JSON with single quotes 1."""


def last_object(text: str, *, having: str, besides: str = "") -> dict[str, Any] | None:
    """The last complete JSON object in `text` that has the key `having`, else a mended one; None if there is none.

    The last one wins: a model that corrects itself means its last word, and an answer quoted before the
    verdict cannot stand in for it. One that was cut does not win over one that is whole: half of 85 is an 8.

    A key that stands twice in one object with different values has all of them, as a tuple: no score, text or list.
    (In broken JSON the last one wins, as json-repair has it.)

    Args:
        text: a reply.
        having: a key of the wanted object.
        besides: what the reply is about. Objects that stand in it, by value or word for word, do not count; and where
            it holds something like an object with the key, only objects that are whole JSON do.
    """
    try:
        if not _mentions(besides, having):
            return _last(text, having)
        own = [found for found, _ in _objects(text) if having in found]
        theirs, words = [found for found in _standing(besides) if having in found], _words(besides)
        own = [found for found in own if not (found in theirs or _said(found) in words)]
        return own[-1] if own else None
    except (_HopelessError, RecursionError):
        return None


class _HopelessError(ValueError):
    """A text that is not worth the time that reading it would take."""


def _objects(text: str) -> list[tuple[dict[str, Any], int]]:
    """The outermost objects that are JSON as they stand, and where each ends.

    Raises:
        _HopelessError: too much of the text looks like an object, and is none.
    """
    found: list[tuple[dict[str, Any], int]] = []
    broken = end = 0
    while begin := _BEGIN.search(text, end):
        try:
            value, after = _DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            broken, end = broken + 1, begin.start() + 1
            if broken > _BROKEN_OBJECTS:
                raise _HopelessError from None
            continue
        end = after
        with suppress(RecursionError):  # nested hundreds deep: nobody's answer
            found.append((whole(value), end))
    return found


def _last(text: str, having: str) -> dict[str, Any] | None:
    """The last object with the key, mended if need be."""
    wanted = [(found, end) for found, end in _objects(text) if having in found]
    complete, end = wanted[-1] if wanted else (None, 0)
    rest = text[end:]
    if complete and rest.count("{") != rest.count("}"):
        return complete
    return _mended(rest, having) or complete


def _mended(text: str, having: str) -> dict[str, Any] | None:
    if having not in text or len(text) > _MENDED_CHARACTERS:
        return None
    try:
        found = whole(repair_json(_Looked(text), return_objects=True))
    except (RecursionError, ValueError, _TooManyLooksError):  # nested a thousand deep, or endless: nobody's answer
        return None
    candidates: list[Any] = found if isinstance(found, list) else [found]
    return next((c for c in reversed(candidates) if isinstance(c, dict) and having in c), None)


class _TooManyLooksError(RuntimeError):
    """Not a ValueError: json-repair takes those for a guess that was wrong."""


class _Looked(str):
    """A text that counts how often it is looked at.

    json-repair reads character by character and goes back at every guess: 18,000 characters of `{1{1...}}` took it
    four minutes.
    """

    __slots__ = ("left",)
    left: list[int]

    def __new__(cls, text: str, left: list[int] | None = None) -> "_Looked":
        self = super().__new__(cls, text)
        self.left = left if left is not None else [20_000 + _LOOKS * len(text)]
        return self

    def __getitem__(self, place: Any) -> str:
        found = super().__getitem__(place)
        self.left[0] -= 1 + len(found) // 100
        if self.left[0] < 0:
            raise _TooManyLooksError
        return _Looked(found, self.left) if isinstance(place, slice) else found

    def __add__(self, other: str) -> "_Looked":  # json-repair puts a brace in, and reads on in what comes of it
        return _Looked(super().__add__(other), self.left)


def _standing(text: str) -> Iterator[dict[str, Any]]:
    """All objects in a text, those within others and within their strings too, and those that are escaped."""
    open_: list[Any] = [text]
    while open_:
        item = open_.pop()
        if isinstance(item, str) and "{" in item:
            with suppress(_HopelessError):  # its words are compared all the same
                open_.extend(found for found, _ in _objects(item))
            if '\\"' in item:
                open_.append(re.sub(r"\\(.)", r"\1", item, flags=re.DOTALL))
        elif isinstance(item, dict):
            yield item
            open_.extend(item.values())
        elif isinstance(item, list | tuple):
            open_.extend(item)


def _mentions(text: str, key: str) -> bool:
    """Could something in the text be read, or mended, as an object with this key?"""
    return bool(re.search(r"[\[\]{}\uff3b\uff3d\uff5b\uff5d]|\\u", text)) and _words(key) in _words(text)


def _said(value: Any) -> str:
    """The words of keys and values, in the order in which they stand in JSON."""
    return _words(json.dumps(value, ensure_ascii=False))


def _words(text: str) -> str:
    """Letters and digits of a text, word by word with spaces around: the same however it is quoted or escaped.

    Quotes, backslashes, fences and what nobody sees make no difference; nor do wide or upper-case letters.
    """
    text = re.sub(r"\\u([\da-fA-F]{4})", lambda found: chr(int(found.group(1), 16)), text)
    text = re.sub(r"\\+[bfnrt]?", " ", text)
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFKC", whole(text))
        text = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] not in "CM")
    words = re.findall(r"[^\W_]+", text.casefold())
    return f" {' '.join(words)} "


def points(value: Any) -> float | None:
    """A score from 0 to 100 as models write it: 85, 85.5, "85", "85/100", "85 %". Anything else is None.

    True is no number, and a score out of range is not brought into it. A score in quotes has plain digits: no
    exponent, and no full-width, Arabic or other digits, all of which `float` would read.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?)\s*(?:/\s*100|%)?\s*", value, re.ASCII)
        value = float(match.group(1)) if match else None
    if not isinstance(value, int | float) or not 0 <= value <= 100:  # NaN is not, nor an int too large for a float
        return None
    return float(value) + 0.0  # -0.0 is 0


def whole(value: Any) -> Any:
    """The value with half characters (lone surrogates) replaced: no file, database or request can hold them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, tuple):
        return tuple(whole(item) for item in value)
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands in it again with another value has both."""
    found: dict[str, Any] = {}
    twice: dict[str, list[Any]] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            twice.setdefault(key, [found[key]]).append(value)
        found[key] = value
    return found | {key: tuple(values) for key, values in twice.items()}


_BEGIN = re.compile(r'\{(?=[ \t\r\n]*["}])')  # what else follows a brace, `raw_decode` refuses at some cost
_DECODER = json.JSONDecoder(object_pairs_hook=_once)
