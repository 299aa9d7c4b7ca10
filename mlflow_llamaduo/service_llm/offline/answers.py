"""What `offline/teacher` answers to a plain prompt: words of the prompt itself, by one rule for every task.

The longest paragraph is taken for the text, all others for what is asked of it. Where they list labels, the answer is
the label with the most words in the text, else the first. Where they ask a question, it is the shortest sentence or
clause that shares the most words with it. Else, or where none shares any, it is the first sentence (lead-1, the usual
baseline of summarization).

It understands nothing, and looks up no name, date or "yes". Code it cannot write at all: to a request for code it
repeats the request's first sentence. The list of labels is found by cruder rules than the judge's, which knows the
right label and may try every list.
"""

import re
from dataclasses import dataclass

from mlflow_llamaduo.core.overlap import ARTICLES
from mlflow_llamaduo.core.text import words
from mlflow_llamaduo.service_llm.offline.summarization_judge import EMPTY

LABEL_WORDS = 4
"""What is longer is a sentence, not a label."""

_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_SENTENCE = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)[\"')]*\s+|\n+")
_CLAUSE = re.compile(r"[,;:]\s|\s(?:and|but|because|so that|which|where|when|until)\s")
_BULLET = re.compile(r"\n[ \t]*(?:[-*\u2022]|\d{1,3}[.)])[ \t]|\][ \t]*\[")
_STOP = re.compile(r"[.?!](?=\s|$)|[()\[\]\n]")
_LIST = re.compile(r"\b(?:or|of|from|between|are)\b|/|\|")  # commas alone: "the gist, in short, please"
_LENGTH = re.compile(r"\b(?:words?|sentences?|lines?)\b")  # "in one or two sentences" offers no labels
_BETWEEN = re.compile(r"[,;]\s(?:or\b|and\b)?|\bor\b|/|\|")


@dataclass(frozen=True, slots=True)
class _Parts:
    """A prompt taken apart: what is asked, its question (empty if it has none), and the sentences of the text."""

    asks: str
    question: str
    text: tuple[str, ...]


def answer(prompt: str) -> str:
    """An extract of the prompt, the same one every time; empty only where the prompt is."""
    parts = _parts(prompt)
    labels = _labels(parts.asks)
    if labels:
        known = _content(" ".join(parts.text))
        return max(labels, key=lambda label: len(_content(label) & known))
    asked = _content(parts.question)
    pieces = (piece.strip(" ,;:") for sentence in parts.text for piece in (sentence, *_CLAUSE.split(sentence)))
    best = max(pieces, key=lambda piece: (len(_content(piece) & asked), -len(piece)), default="")
    return best if _content(best) & asked else next(iter(parts.text), "")


def _parts(prompt: str) -> _Parts:
    paragraphs = [part.strip() for part in _PARAGRAPH.split(prompt)]
    if len(paragraphs) == 1:
        paragraphs = prompt.strip().split("\n")
    longest = max(range(len(paragraphs)), key=lambda number: len(paragraphs[number]))
    asks = "\n\n".join(paragraphs[:longest] + paragraphs[longest + 1 :])
    text = _sentences(paragraphs[longest])
    question = next((sentence for sentence in reversed(_sentences(asks) or text) if _ends(sentence, "?")), "")
    told = [sentence for sentence in text if not _ends(sentence, "?") and not _ends(sentence, ":")]
    return _Parts(asks or question, question, tuple(told or text))


def _labels(asks: str) -> list[str]:
    """The longest list in what is asked: items after a colon or bracket, or in a sentence with a word of lists."""
    found: list[str] = []
    for stretch in _STOP.split(_BULLET.sub(" / ", asks).replace(" (", ": ")):
        _, colon, listed = stretch.rpartition(": ")
        items = [bare for item in _BETWEEN.split(listed) if (bare := _bare(item))]
        if len(items) < 2 or not (colon or _LIST.search(listed)):
            continue
        if not colon:  # "Is the dish below a soup, a salad or a drink": the sentence ends in the first item
            size = min(len(item.split()) for item in items[1:])
            items[0] = _bare(" ".join(items[0].split()[-size:])) or items[0]
        items = [item for item in items if len(item.split()) <= LABEL_WORDS and not _LENGTH.search(item)]
        found = max(found, items, key=len)
    return found if len(found) > 1 else []


def _bare(item: str) -> str:
    """An item without quotation marks around it and the article before it."""
    parts = item.strip(" \t\"'\u201c\u201d*`").split()
    return " ".join(parts[1:] if len(parts) > 1 and parts[0].lower() in ARTICLES else parts)


def _sentences(text: str) -> list[str]:
    return [sentence for part in _SENTENCE.split(text) if (sentence := part.strip())]


def _ends(sentence: str, mark: str) -> bool:
    return sentence.rstrip("\"')").endswith(mark)


def _content(text: str) -> set[str]:
    """The words that carry meaning."""
    return {word for word in words(text) if word not in EMPTY}
