"""What `offline/teacher` writes for classification: texts, lists of labels and the right one, from a seed, offline.

It plainly is a grammar, not a language model. It draws a kind of `classification.yaml`, then the label, then a text
that nobody would sort elsewhere: it knows the answer because it chose it first. The wrong labels, their order, their
writing and the layout are drawn too, so that no place in the list and no wording gives the answer away. It stands
in for a paid model so that synthesis runs, costs and repeats the same everywhere; what it says about a student's
quality holds for this grammar only. The notation of a template is explained in the data file.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from mlflow_llamaduo.service_llm.offline.templates import Filler, WrittenPair, capitalised, read, tuples

FEWEST_WORDS, MOST_WORDS = 40, 130
"""Of a prompt."""

LONG_ENOUGH = 24
"""Words of a text that may go without an opening or a close."""

SEVERAL_SHARE = 0.16
"""How often a text has several labels."""

SENTENCE_SHARE = 0.18
"""How often the one right label is to be given in a full sentence."""

SHOWN: Mapping[int, int] = {2: 3, 3: 5, 4: 5, 5: 2}
"""Labels in a prompt, with the weight of each number."""

RIGHT: Mapping[int, int] = {1: 1, 2: 5, 3: 3}
"""Right labels of a text that may have several."""

WRITING: Mapping[Callable[[str], str], int] = {str: 7, str.capitalize: 4, str.upper: 1}

# How people lay such a request out; {labels} is one of the lists, {how} says how to answer and may be empty.
LAYOUTS: Mapping[str, int] = {
    "{ask} {labels}\n\n{text}\n\n{how}": 6,
    "{ask} {labels} {how}\n\n{text}": 6,
    "{text}\n\n{ask} {labels} {how}": 6,
    "{labels}\n\n{text}\n\n{ask} {how}": 3,
    "{Unit}: {text}\n\n{ask} {labels}\n{how}": 3,
    "{ask} {how}\n\nText: {text}\n\n{labels}": 3,
    "{Unit}:\n{text}\n\n{labels}\n{ask} {how}": 2,
    "{ask} {how}\n\n{text}\n\n{labels}\n\n{Noun}:": 2,
}

LISTS: Mapping[str, int] = {
    "Labels: {commas}.": 4,
    "The options are {and}.": 2,
    "Options: {slashes}": 2,
    "({commas})": 2,
    "Possible labels: {commas}.": 2,
    "Pick from {quoted}.": 1,
    "Labels:\n{bullets}\n": 2,
}

LISTS_FOR_ONE: Mapping[str, int] = {
    **LISTS,
    "Choose from {or}.": 4,
    "Is it {or}?": 2,
    "Use one of these: {semicolons}.": 2,
}

HOW_ONE: Mapping[str, int] = {
    "": 6,
    "Answer with the label only.": 2,
    "One label, nothing else.": 2,
    "Just write the right label.": 2,
    "Only the label, please.": 1,
}

HOW_SENTENCE: Mapping[str, int] = {
    'Answer in a sentence: "{frame}"': 3,
    'Write a full sentence like this: "{frame}"': 2,
    'Put the label into this sentence: "{frame}"': 2,
    'Complete "{frame}" and write the whole sentence.': 1,
}

HOW_SEVERAL: Mapping[str, int] = {
    "Separate several labels by commas.": 3,
    "Give all that apply, with commas between them.": 3,
    "One or more may be right; use commas.": 2,
    "Answer as a list with commas.": 2,
}


Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Label:
    """One meaning: its names, sentences that make a text this label's, and sentences that may follow them."""

    names: tuple[str, ...]
    core: tuple[str, ...]
    more: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """Labels that exclude each other (or, with `several`, go together), and what is asked about their texts."""

    several: bool
    unit: tuple[str, ...]
    noun: tuple[str, ...]
    ask: tuple[str, ...]
    sentence: tuple[str, ...]
    open: tuple[str, ...]
    close: tuple[str, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Grammar:
    """Everything the data file says."""

    words: Mapping[str, tuple[str, ...]]
    one: Mapping[Kind, int]
    several: Mapping[Kind, int]
    """Kinds with their weights: a kind that has more to say is drawn more often."""


def write_pairs(*, seed: int, count: int) -> tuple[WrittenPair, ...]:
    """`count` pairs, deterministic in (seed, count); different seeds give different texts."""
    rng = random.Random(f"offline/teacher classification {seed}")  # a string: Random(-1) repeats Random(1)  # noqa: S311
    grammar = _grammar()
    pairs: list[WrittenPair] = []
    while len(pairs) < count:
        pair = _write_pair(grammar, rng)
        if FEWEST_WORDS <= len(pair.instruction.split()) <= MOST_WORDS:
            pairs.append(pair)
    return tuple(pairs)


def _write_pair(grammar: Grammar, rng: random.Random) -> WrittenPair:
    """The labels are drawn first, and the text is written to fit them."""
    kind = _drawn(grammar.several if rng.random() < SEVERAL_SHARE else grammar.one, rng)
    filler = Filler(grammar.words, {"unit": rng.choice(kind.unit), "noun": rng.choice(kind.noun)}, rng)
    shown = rng.sample(kind.labels, min(_drawn(SHOWN, rng) + kind.several, len(kind.labels)))
    names = _names(shown, rng)
    if kind.several:
        right = rng.sample(shown, min(_drawn(RIGHT, rng), len(shown) - 1))
        answer = ", ".join(names[label] for label in shown if label in right)  # as they stand in the list
        how = _drawn(HOW_SEVERAL, rng)
        told = [rng.choice(label.core) for label in right]
    else:
        label = rng.choice(shown)
        answer, how = _form(kind, names[label], filler, rng)
        told = [rng.choice(label.core), rng.choice(label.more)]
    text = _text(kind, told, filler, rng)
    return WrittenPair(_lay_out(kind, text, tuple(names.values()), how, filler, rng), answer)


def _names(shown: Sequence[Label], rng: random.Random) -> dict[Label, str]:
    """What the labels of one prompt are called: names of one series, written in one way."""
    series, write = rng.randrange(6), _drawn(WRITING, rng)
    return {label: write(label.names[series % len(label.names)]) for label in shown}


def _form(kind: Kind, name: str, filler: Filler, rng: random.Random) -> tuple[str, str]:
    """The answer, and what the prompt says about its form."""
    if rng.random() >= SENTENCE_SHARE:
        return name, _drawn(HOW_ONE, rng)
    sentence = rng.choice(kind.sentence)
    frame = filler.fill(sentence.replace("{label}.", "..."))
    return filler.fill(sentence.replace("{label}", name)), _drawn(HOW_SENTENCE, rng).replace("{frame}", frame)


def _text(kind: Kind, told: Sequence[str], filler: Filler, rng: random.Random) -> str:
    """What is told, between an opening and a close that a long text may lack."""
    body = " ".join(filler.fill(sentence) for sentence in told)
    opening, close = (filler.fill(rng.choice(part)) if part else "" for part in (kind.open, kind.close))
    short = len(body.split()) < LONG_ENOUGH
    if short or rng.random() < 0.7:
        body = f"{opening} {body}"
    if short or rng.random() < 0.6:
        body = f"{body} {close}"
    return capitalised(body.strip())


def _lay_out(kind: Kind, text: str, names: Sequence[str], how: str, filler: Filler, rng: random.Random) -> str:
    """The prompt."""
    both = {name.capitalize(): filler.fill(f"{{{name}}}").capitalize() for name in ("unit", "noun")}
    labels = _drawn(LISTS if kind.several else LISTS_FOR_ONE, rng).format(**both, **_lists(names))
    prompt = _drawn(LAYOUTS, rng).format(
        **both, ask=filler.fill(rng.choice(kind.ask)), labels=labels, text=text, how=how
    )
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" *\n *", "\n", prompt)).strip()  # where `how` is empty


def _lists(names: Sequence[str]) -> dict[str, str]:
    """The ways in which a list of labels is written."""
    head = ", ".join(names[:-1])
    return {
        "commas": ", ".join(names),
        "semicolons": "; ".join(names),
        "slashes": " / ".join(names),
        "quoted": ", ".join(f'"{name}"' for name in names),
        "bullets": "\n".join(f"- {name}" for name in names),
        "or": f"{head} or {names[-1]}",
        "and": f"{head} and {names[-1]}",
    }


def _drawn(weights: Mapping[Choice, int], rng: random.Random) -> Choice:
    return rng.choices(tuple(weights), weights=tuple(weights.values()))[0]


@cache
def _grammar() -> Grammar:
    data = read("classification")
    kinds = {kind: sum(len(label.core) for label in kind.labels) for kind in map(_kind, data["kinds"].values())}
    return Grammar(
        words=tuples(data["words"]),
        one={kind: weight for kind, weight in kinds.items() if not kind.several},
        several={kind: weight for kind, weight in kinds.items() if kind.several},
    )


def _kind(entry: Mapping[str, Any]) -> Kind:
    lists = {name: tuple(entry.get(name, ())) for name in ("unit", "noun", "ask", "sentence", "open", "close")}
    labels = tuple(
        Label(tuple(label["names"]), tuple(label["core"]), tuple(label.get("more", ())))
        for label in entry["labels"].values()
    )
    return Kind(several=entry.get("several", False), labels=labels, **lists)
