"""The text generator behind `offline/teacher`: closed question-answering pairs from a seed, without a network.

It plainly is a grammar, not a language model. It expands the genres of `offline_teacher_genres.yaml` at random and knows
each answer because it chose the facts; it understands nothing, reads no prompt, and cannot write about anything its data
file does not name. It stands in for a paid model so that synthesis runs, costs and repeats the same everywhere; what it
says about a student's quality holds for this grammar only. The notation of a template is explained in the data file.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Form = Literal["span", "sentence", "claim"]
"""How a question is answered: words of the passage, a full sentence, or Yes or No to a claim."""

Ask = Literal["span", "sentence", "claim", "unsaid"]
"""What a pair asks for: a form, or a fact that its passage leaves out."""

UNSAID = "The passage does not say."

ASK_WEIGHTS: Mapping[Ask, float] = {"span": 0.56, "sentence": 0.24, "claim": 0.06, "unsaid": 0.14}

FEWEST_WORDS, MOST_WORDS = 40, 90

# A template in two parts: the plain question, or one that goes on after an opening and so starts in lower case.
LAYOUTS: Mapping[str, int] = {
    "{passage}\n\n{question}": 10,
    "{question}\n\nText: {passage}": 4,
    "Passage: {passage}\n\nQuestion: {question}": 4,
    "Read the text and answer. {passage}\n\n{question}": 2,
    "Read the text and answer the question.\n\n{passage}\n\n{question}": 2,
    "{question} Answer from this text.\n\n{passage}": 2,
    "Text:\n{passage}\n\nQ: {question}": 2,
    "{passage}\n\nGoing by this text, {continued}": 1,
    "According to the passage below, {continued}\n\n{passage}": 1,
    "I have a question about this text: {continued}\n\n{passage}": 1,
}

_HOLE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"\{(\w+)\}")
_RANGE = re.compile(r"(\d+)-(\d+)(?:/(\d+))?")
_ARTICLE = re.compile(r"\b([Aa])n? (?=(\w+))")
_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|eu|one\b|once)[aeiou]|hour|honest|heir|8|1[18]\b", re.IGNORECASE)
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


@dataclass(frozen=True)
class WrittenPair:
    """A closed question and its answer, all of it ASCII."""

    instruction: str
    """Passage and question, as a user would send them."""
    response: str
    """Words of the passage, one sentence, Yes or No, or `UNSAID`."""


@dataclass(frozen=True)
class Question:
    """One fact asked for in several wordings; `answer` is a template, for a claim the true one beside a false `foil`."""

    wordings: tuple[str, ...]
    form: Form
    answer: str
    foil: str = ""


@dataclass(frozen=True)
class Beat:
    """One step of a passage: every alternative in `say` states the facts that `ask` asks for, and no other beat does."""

    say: tuple[str, ...]
    ask: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Genre:
    """A kind of passage: the lead opens it, some of the beats follow, told in their order or in any."""

    slots: Mapping[str, str]
    lead: Beat
    beats: tuple[Beat, ...]
    absent: tuple[str, ...]
    ordered: bool

    def of_form(self, form: Form) -> list[tuple[Beat, Question]]:
        """Every question answered in this form, with the beat that holds its fact."""
        beats = (self.lead, *self.beats)
        return [(beat, question) for beat in beats for question in beat.ask if question.form == form]

    def unsaid(self) -> list[tuple[Beat | None, str]]:
        """Every wording that can go unanswered, with the beat to leave out.

        A wording that names more than the lead does would give away, or make up, a part of the missing beat.
        """
        known = frozenset.intersection(*(frozenset(_NAME.findall(text)) for text in self.lead.say))
        left_out: list[tuple[Beat | None, str]] = [
            (beat, wording)
            for beat in self.beats
            for question in beat.ask
            if question.form != "claim"
            for wording in question.wordings
            if known.issuperset(_NAME.findall(wording))
        ]
        return left_out + [(None, wording) for wording in self.absent]


@dataclass(frozen=True)
class Grammar:
    """Everything the data file says."""

    words: Mapping[str, tuple[str, ...]]
    genres: tuple[Genre, ...]


class Filler:
    """Fills the templates of one passage. A word or number drawn once is not drawn again while others are left, so two
    people, towns or years of one passage are never the same and an answer stays unambiguous.
    """

    def __init__(self, grammar: Grammar, genre: Genre, rng: random.Random) -> None:
        self._words = grammar.words
        self._rng = rng
        self._drawn: set[str] = set()
        self._slots: dict[str, str] = {}
        for name, template in genre.slots.items():
            self._slots[name] = self._expand(template)

    def fill(self, template: str, **extra: str) -> str:
        """The text of a template, with a or an as the next word wants it."""
        for name, value in extra.items():
            template = template.replace(f"{{{name}}}", value)
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
        self._drawn.add(entry)
        return entry


def write_pairs(*, seed: int, count: int) -> tuple[WrittenPair, ...]:
    """Deterministic in (seed, count); different seeds give different passages."""
    rng = random.Random(f"offline/teacher {seed}")  # a string, since random.Random(-1) repeats random.Random(1)
    grammar = _grammar()
    return tuple(_write_pair(grammar, rng) for _ in range(count))


def _write_pair(grammar: Grammar, rng: random.Random) -> WrittenPair:
    """The question is chosen before the passage, which is then made to hold its fact, or to leave it out."""
    genre = rng.choice(grammar.genres)
    filler = Filler(grammar, genre, rng)
    (ask,) = rng.choices(tuple(ASK_WEIGHTS), weights=tuple(ASK_WEIGHTS.values()))
    if ask == "unsaid":
        without, wording = rng.choice(genre.unsaid())
        passage = _passage(genre, filler, rng, told=None, untold=without)
        return _pair(passage, filler.fill(wording), UNSAID, rng)
    beat, question = rng.choice(genre.of_form(ask))
    passage = _passage(genre, filler, rng, told=beat, untold=None)
    wording = rng.choice(question.wordings)
    if ask == "claim":
        true = rng.random() < 0.5
        claim = filler.fill(question.answer if true else question.foil)
        return _pair(passage, filler.fill(wording, claim=claim), "Yes" if true else "No", rng)
    return _pair(passage, filler.fill(wording), _finished(filler.fill(question.answer), ask), rng)


def _passage(genre: Genre, filler: Filler, rng: random.Random, *, told: Beat | None, untold: Beat | None) -> str:
    """The lead, the beat `told`, and others but never `untold`, up to a length drawn for this passage."""
    goal = rng.randint(FEWEST_WORDS + 8, MOST_WORDS - 8)
    first = [beat for beat in genre.beats if beat is told]
    others = rng.sample(
        [beat for beat in genre.beats if beat is not told and beat is not untold], k=len(genre.beats) - 1
    )
    lead = filler.fill(rng.choice(genre.lead.say))
    chosen: list[tuple[int, str]] = []
    length = len(lead.split())
    for beat in first + others:
        sentence = filler.fill(rng.choice(beat.say))
        extra = len(sentence.split())
        if length < goal and length + extra <= MOST_WORDS:
            length += extra
            place = genre.beats.index(beat) if genre.ordered else rng.randrange(1_000_000)
            chosen.append((place, sentence))
    text = " ".join([lead, *(sentence for _, sentence in sorted(chosen))])
    return _SENTENCE_START.sub(lambda letter: letter[0].upper(), text)
