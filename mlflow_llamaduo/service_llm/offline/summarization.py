"""What `offline/teacher` writes for summarization: passages and one-sentence summaries from a seed, offline.

It plainly is a grammar, not a language model. A text of `summarization.yaml` has points, which are always told, and
details, which may be. The summary is made of the points' facts in other words: it is true because the grammar chose
the facts, and a student can learn from it to leave the details out. Nothing is read, understood or shortened.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mlflow_llamaduo.service_llm.offline.templates import Filler, WrittenPair, capitalised, read, tuples

AIM = (60, 90)
"""Details are added until the passage has a length drawn from these limits, in words; the longest has 110."""

MOST_SUMMARY_WORDS = 22

# How people ask for a summary, with the weight of each way.
LAYOUTS: Mapping[str, int] = {
    "{passage}\n\nSum this up in one sentence.": 6,
    "Summarize the text in one sentence.\n\n{passage}": 6,
    "{passage}\n\nTL;DR": 3,
    "{passage}\n\nWhat is the gist?": 3,
    "In one line, what does this text say?\n\n{passage}": 3,
    "Text: {passage}\n\nOne-sentence summary:": 3,
    "What is the main point of the following text?\n\n{passage}": 2,
    "Please summarise this for me in a single sentence.\n\n{passage}": 2,
    "{passage}\n\nPlease put the main facts into one sentence.": 2,
    "I have no time to read this. One sentence, please: {passage}": 1,
    "Boil this down to one sentence.\n\n{passage}": 1,
    "tldr?\n\n{passage}": 1,
    "{passage}\n\nIn short, one sentence: what happened, and what matters?": 1,
}


@dataclass(frozen=True)
class Beat:
    """One step of a passage, in several wordings; a `point` is always told, a detail if there is room."""

    say: tuple[str, ...]
    point: bool


@dataclass(frozen=True)
class Genre:
    """A kind of text: what may have happened, its other facts, its steps in their order, and its summaries."""

    cases: tuple[Mapping[str, str], ...]
    slots: Mapping[str, str]
    beats: tuple[Beat, ...]
    summary: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """Everything the data file says."""

    words: Mapping[str, tuple[str, ...]]
    genres: tuple[Genre, ...]


def write_pairs(*, seed: int, count: int) -> tuple[WrittenPair, ...]:
    """`count` pairs, deterministic in (seed, count); different seeds give different passages."""
    rng = random.Random(f"offline/teacher summarization {seed}")  # a string: -1 and 1 are different seeds  # noqa: S311
    grammar = _grammar()
    return tuple(_write_pair(grammar, rng) for _ in range(count))


def _write_pair(grammar: Grammar, rng: random.Random) -> WrittenPair:
    genre = rng.choice(grammar.genres)
    filler = Filler(grammar.words, {**rng.choice(genre.cases), **genre.slots}, rng)
    passage = _passage(genre, filler, rng)
    (layout,) = rng.choices(tuple(LAYOUTS), weights=tuple(LAYOUTS.values()))
    return WrittenPair(layout.format(passage=passage), _summary(genre, filler, rng))


def _summary(genre: Genre, filler: Filler, rng: random.Random) -> str:
    """One of the genre's summaries that these facts do not make too long."""
    summaries = [filler.fill(template) for template in rng.sample(genre.summary, len(genre.summary))]
    return capitalised(min(summaries, key=lambda text: max(len(text.split()), MOST_SUMMARY_WORDS)))


def _passage(genre: Genre, filler: Filler, rng: random.Random) -> str:
    """Every point, and details up to a length drawn for this passage, in the genre's order."""
    enough = rng.randint(*AIM)
    told = {number: filler.fill(rng.choice(beat.say)) for number, beat in enumerate(genre.beats) if beat.point}
    details = [number for number, beat in enumerate(genre.beats) if not beat.point]
    for number in rng.sample(details, len(details)):
        if sum(len(sentence.split()) for sentence in told.values()) < enough:
            told[number] = filler.fill(rng.choice(genre.beats[number].say))
    return capitalised(" ".join(told[number] for number in sorted(told)))


@cache
def _grammar() -> Grammar:
    data = read("summarization")
    return Grammar(tuples(data["words"]), tuple(_genre(entry) for entry in data["genres"].values()))


def _genre(entry: Mapping[str, Any]) -> Genre:
    return Genre(
        cases=tuple(entry["cases"]),
        slots=entry["slots"],
        beats=tuple(_beat(beat) for beat in entry["beats"]),
        summary=tuple(entry["summary"]),
    )


def _beat(entry: Mapping[str, list[str]]) -> Beat:
    ((kind, say),) = entry.items()
    return Beat(tuple(say), kind == "point")
