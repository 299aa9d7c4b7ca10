"""Templates with holes, as the grammars of `offline/teacher` are written in.

{name}        a slot of the text at hand, else a draw from the grammar's words
{3-40}        a whole number within these limits; {100-900/50} goes in steps of 50
{this|that}   one of these; a choice may hold other holes
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

_HOLE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)-(\d+)(?:/(\d+))?")
_ARTICLE = re.compile(r"\b([Aa])n? (?=(\w+))")
_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|eu|one\b|once)[aeiou]|hour|honest|heir|8|1[18]\b", re.IGNORECASE)
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


@dataclass(frozen=True)
class WrittenPair:
    """A prompt and its answer, as a grammar made them."""

    instruction: str
    """What a user would send."""
    response: str


def read(name: str) -> dict[str, Any]:
    """The data file of a grammar."""
    text = (files("mlflow_llamaduo.service_llm.offline") / f"{name}.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - the safe one, in C
    return data


def tuples(lists: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Lists by name, such as a grammar's words."""
    return {name: tuple(entries) for name, entries in lists.items()}


class Filler:
    """Fills the templates of one text.

    A word or number drawn once is not drawn again while others are left: two people, towns or years of one
    text are then never the same, and an answer stays unambiguous.
    """

    def __init__(self, words: Mapping[str, tuple[str, ...]], slots: Mapping[str, str], rng: random.Random) -> None:
        self._words = words
        self._rng = rng
        self._drawn: set[str] = set()
        self._slots: dict[str, str] = {}
        for name, template in slots.items():
            self._slots[name] = self._expand(template)

    def fill(self, template: str) -> str:
        """The text of a template, with a or an as the next word wants it."""
        return _ARTICLE.sub(_article, self._expand(template))

    def _expand(self, template: str) -> str:
        while hole := _HOLE.search(template):  # the innermost first, so a choice may hold slots
            template = template[: hole.start()] + self._value(hole[1]) + template[hole.end() :]
        return template

    def _value(self, hole: str) -> str:
        if "|" in hole:
            return self._rng.choice(hole.split("|"))
        if hole in self._slots:
            return self._slots[hole]
        if limits := _RANGE.fullmatch(hole):
            low, high, step = (int(number or 1) for number in limits.groups())
            return self._draw([_number(value) for value in range(low, high + 1, step)])
        return self._draw(self._words[hole])

    def _draw(self, entries: list[str] | tuple[str, ...]) -> str:
        entry = self._rng.choice([entry for entry in entries if entry not in self._drawn] or entries)
        if "{" not in entry:  # a template may be drawn again: its holes are fresh
            self._drawn.add(entry)
        return entry


def capitalised(text: str) -> str:
    """The text with a capital letter where a sentence begins."""
    return _SENTENCE_START.sub(lambda letter: letter[0].upper(), text)


def _article(match: re.Match[str]) -> str:
    return f"{match[1]}{'n' if _VOWEL_SOUND.match(match[2]) else ''} "


def _number(value: int) -> str:
    """Commas from five digits on, so that a year stays a year."""
    return f"{value:,}" if value >= 10_000 else str(value)
