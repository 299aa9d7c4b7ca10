"""How `offline/judge` scores classification: which labels does a response name, and are they the right ones?

The list of labels is read out of the instruction, since only it tells a hedge ("billing or delivery") from words
around the label. One right label is all or nothing: a response that names another one beside it has not decided.
Several labels are compared as sets. Words around them cost up to half; a lead-in ("The category is ...", "Label:")
costs nothing.

People write such lists in many ways, and all of this is read by rules. Where none of them finds the list, the
reference itself is the label, and what hedges is a response that is a list.
"""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass

from mlflow_llamaduo.core.overlap import ARTICLES
from mlflow_llamaduo.service_llm.offline.metrics import Given

MOST_CHARACTERS = 20_000
"""What is read of a text: a label further down is no answer, and hostile text must not cost minutes."""

LABEL_WORDS = 6
"""What is longer is a sentence, not a label."""

LEAD_IN_WORDS = 6
"""So many words may lead up to the label for nothing."""

MANY = 20
"""Words too many from which on no more is taken off."""

Words = tuple[str, ...]

_WORD = re.compile(r"[^\W_]+(?:[+#]+(?!\w))?")  # C is not C++
_BULLET = re.compile(r"(?:^|\n)[ \t]*(?:[-*\u2022]|\d{1,3}[.)])[ \t]")
_STOP = re.compile(r"[.:?!](?=\s|$)|[()\[\]\n\"\u201c\u201d\u201e\u00ab\u00bb]")
_BETWEEN = re.compile(r"[,;/|]|\bor\b")
_ENCLOSED = re.compile(r"\"([^\"\n]{1,80})\"|\u201c([^\u201d\n]{1,80})\u201d|\[([^\[\]\n]{1,80})\]|(#\w{1,40})")
_NOTHING_ELSE = re.compile(r"(?:[\s,;/|.]|or\b|and\b){1,20}")
_LISTED = re.compile(r"[,;/|\n]|\bor\b|\band\b")
_DENIALS = frozenset({"not", "no", "never", "neither", "nor", "t"})  # "isn't" is two words here
_JOINTS = frozenset({"and", "or"})
_LINKS = frozenset({"is", "are", "as", "to", "under", "in", "about", "from", "label", "category", "class", "answer"})


@dataclass(frozen=True)
class Labels:
    """What should be named, and all that could be."""

    right: frozenset[Words]
    offered: frozenset[Words]


@dataclass(frozen=True)
class Named:
    """The labels in a response, and how many of its words are no part of them."""

    labels: frozenset[Words]
    extra: int


def by_labels(reference: str, response: str, instruction: str = "") -> tuple[Given, Given]:
    """Similarity and precision of a response that should name the labels of the reference.

    Precision is the F1 of the labels, less up to a half for words that are none; similarity is diluted by these
    words as a token F1 is. Both are 0 where one label is right and the response names any other.
    """
    wanted = _words(reference)
    if wanted == _words(response) and (wanted or reference.strip() == response.strip()):  # labels may be "+" and "-"
        return Given(1.0, "the reference"), Given(1.0, "the reference")
    labels = read_labels(reference, instruction)
    named = read_named(response, labels)
    f1 = 2 * len(labels.right & named.labels) / max(1, len(labels.right) + len(named.labels))
    if len(labels.right) == 1 and named.labels != labels.right:
        f1 = 0.0
    own = max(1, sum(map(len, labels.right)))
    why = f"label F1 {f1:.2f}, {named.extra} words besides"
    return (
        Given(f1 * own / (own + named.extra / 2), why),
        Given(f1 * (1 - min(named.extra, MANY) / MANY / 2), why),
    )


def read_labels(reference: str, instruction: str) -> Labels:
    """The labels of the reference by the list in the instruction: the one that has most of its words."""
    wanted = _words(reference)
    runs = {wanted[at : at + size] for size in range(1, LABEL_WORDS + 1) for at in range(len(wanted) - size + 1)}
    lists = _lists(instruction[:MOST_CHARACTERS])
    offered = max(lists, key=lambda items: sorted(map(len, items & runs), reverse=True), default=frozenset())
    found = _places(wanted, offered)
    if sum(map(len, found.values())) == len(wanted) or (found and reference.rstrip().endswith(".")):
        return Labels(frozenset(found.values()), offered)
    items = frozenset(filter(None, map(_words, re.split(r"[,;|\n]", reference[:MOST_CHARACTERS]))))
    return Labels(items, items)


def read_named(response: str, labels: Labels) -> Named:
    """What a response names: labels that it does not deny, and in a plain list whatever else could be one."""
    text, known = response[:MOST_CHARACTERS], labels.offered | labels.right
    said = _words(text)
    found = {at: label for at, label in _places(said, known).items() if not _denied(said, at)}
    items = [item for item in map(_words, _LISTED.split(text)) if item]
    strange: set[Words] = set()
    if len(items) > 1 and all(len(item) <= max(map(len, known), default=0) for item in items):
        strange = {item for item in items if not _places(item, known)}
    names = frozenset(found.values()) | strange
    joints = sum(word in _JOINTS for word in said) if len(names) > 1 else 0
    return Named(names, max(0, len(said) - joints - sum(map(len, names)) - _lead_in(text, said, found)))


def _lead_in(text: str, said: Words, found: dict[int, Words]) -> int:
    """How many words only lead up to the first label."""
    first = min(found, default=0)
    leads = first <= LEAD_IN_WORDS and first > 0 and (":" in text or said[first - 1] in _LINKS)
    return first if leads else 0


def _denied(said: Words, at: int) -> bool:
    return not _DENIALS.isdisjoint(said[max(0, at - 2) : at])


def _places(text: Words, labels: Set[Words]) -> dict[int, Words]:
    """Where labels stand in a text: from left to right, the longest first, none within another."""
    sizes = sorted({len(label) for label in labels}, reverse=True)
    found: dict[int, Words] = {}
    at = 0
    while at < len(text):
        label = next((text[at : at + size] for size in sizes if text[at : at + size] in labels), None)
        if label:
            found[at] = label
        at += len(label or "1")
    return found


def _lists(instruction: str) -> Iterator[frozenset[Words]]:
    """Everything in an instruction that may be a list of labels; prose with commas is among it."""
    yield from (items for items in _enclosed(instruction) if len(items) > 1)
    for stretch in _STOP.split(_BULLET.sub(" / ", instruction)):
        items = [item for item in map(_words, _BETWEEN.split(stretch)) if item]
        parts = [part for item in items[1:] or items for part in _parts(item)]
        items = [*items, *parts] if len(items) > 1 else parts
        if items:
            yield frozenset(label for label in _edges(items) if len(label) <= LABEL_WORDS)


def _parts(item: Words) -> Iterator[Words]:
    """The two sides of an "and": "drums and trumpet" may be two labels, "lost and found" one."""
    if "and" in item[1:-1]:
        at = item.index("and", 1)
        yield from (item[:at], item[at + 1 :])


def _edges(items: list[Words]) -> Iterator[Words]:
    """The items of a list in a sentence ("Is it X, Y or Z in your view?"), its ends with and without the sentence."""
    yield from items
    for size in (1, 2, 3):
        yield items[0][-size:]
        if len(items[-1]) > 3 and items[-1][size - 1] not in _DENIALS:
            yield items[-1][:size]


def _enclosed(instruction: str) -> Iterator[frozenset[Words]]:
    """Lists of items in quotation marks or brackets, or with a hash."""
    items: set[Words] = set()
    end = 0
    for match in _ENCLOSED.finditer(instruction):
        if not _NOTHING_ELSE.fullmatch(instruction[end : match.start()]):
            yield frozenset(items)
            items = set()
        items.add(_words(match[match.lastindex or 0]))
        end = match.end()
    yield frozenset(items)


def _words(text: str) -> Words:
    """Words in lower case, without articles unless there is nothing else."""
    found = _WORD.findall(text[:MOST_CHARACTERS].lower())
    return tuple([word for word in found if word not in ARTICLES] or found)
