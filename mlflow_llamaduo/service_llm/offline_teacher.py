"""The text generator behind `offline/teacher`: closed question-answering pairs from a seed, offline.

It plainly is a grammar, not a language model. It expands the genres of `offline_teacher_genres.yaml` at
random and knows each answer because it chose the facts; it understands nothing, reads no prompt, and cannot
write about anything its data file does not name. It stands in for a paid model so that synthesis runs,
costs and repeats the same everywhere; what it says about a student's quality holds for this grammar only.
The notation of a template is explained in the data file.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

import yaml

Form = Literal["span", "sentence", "claim"]
"""How a question is answered: words of the passage, a full sentence, or Yes or No to a claim."""

Ask = Literal["span", "sentence", "claim", "unsaid"]
"""What a pair asks for: a form, or a fact that its passage leaves out."""

UNSAID = "The passage does not say."

ASK_WEIGHTS: Mapping[Ask, float] = {"span": 0.62, "sentence": 0.26, "claim": 0.06, "unsaid": 0.06}

FEWEST_WORDS, MOST_WORDS = 40, 90

# How people write such a request, with the weight of each way. A `continued` question starts in lower case.
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
    """One fact asked for in several wordings.

    `answer` is a template; for a claim it is what a Yes confirms, beside the `foil` that a No denies.
    """

    wordings: tuple[str, ...]
    form: Form
    answer: str
    foil: str = ""


@dataclass(frozen=True)
class Beat:
    """One step of a passage: each alternative in `say` states what `ask` asks for, and no other beat does."""

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
    """Fills the templates of one passage.

    A word or number drawn once is not drawn again while others are left: two people, towns or years of one
    passage are then never the same, and an answer stays unambiguous.
    """

    def __init__(self, grammar: Grammar, genre: Genre, rng: random.Random) -> None:
        self._words = grammar.words
        self._rng = rng
        self._drawn: set[str] = set()
        self._slots: dict[str, str] = {}
        for name, template in genre.slots.items():
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


def write_pairs(*, seed: int, count: int) -> tuple[WrittenPair, ...]:
    """`count` pairs, deterministic in (seed, count); different seeds give different passages."""
    rng = random.Random(f"offline/teacher {seed}")  # a string: random.Random(-1) repeats random.Random(1)  # noqa: S311
    grammar = _grammar()
    return tuple(_write_pair(grammar, rng) for _ in range(count))


def _write_pair(grammar: Grammar, rng: random.Random) -> WrittenPair:
    """The question is drawn before the passage, which is then made to tell its fact or to leave it out."""
    genre = rng.choice(grammar.genres)
    filler = Filler(grammar, genre, rng)
    (ask,) = rng.choices(tuple(ASK_WEIGHTS), weights=tuple(ASK_WEIGHTS.values()))
    if ask == "unsaid":
        untold, wording = rng.choice(genre.unsaid())
        passage = _passage(genre, filler, rng, untold=untold)
        return _lay_out(passage, filler.fill(wording), UNSAID, rng)
    told, question = rng.choice(genre.of_form(ask))
    passage = _passage(genre, filler, rng, told=told)
    wording, answer = rng.choice(question.wordings), question.answer
    if ask == "claim":
        claim, answer = rng.choice([(question.answer, "Yes"), (question.foil, "No")])
        wording = wording.replace("{claim}", claim)
    answer = filler.fill(answer)
    return _lay_out(passage, filler.fill(wording), _capitalised(answer) if ask == "sentence" else answer, rng)


def _passage(
    genre: Genre, filler: Filler, rng: random.Random, *, told: Beat | None = None, untold: Beat | None = None
) -> str:
    """The lead, the beat `told`, and others but never `untold`, up to a length drawn for this passage."""
    enough = rng.randint(FEWEST_WORDS + 8, MOST_WORDS - 8)
    beats = [beat for beat in genre.beats if beat is not untold]
    rng.shuffle(beats)
    lead = filler.fill(rng.choice(genre.lead.say))
    length = len(lead.split())
    chosen: list[tuple[Beat, str]] = []
    for beat in sorted(beats, key=lambda beat: beat is not told):  # the one asked about is sure of its place
        sentence = filler.fill(rng.choice(beat.say))
        longer = length + len(sentence.split())
        if length < enough and longer <= MOST_WORDS:
            length = longer
            chosen.append((beat, sentence))
    if genre.ordered:
        chosen.sort(key=lambda pair: genre.beats.index(pair[0]))
    else:
        rng.shuffle(chosen)
    return _capitalised(" ".join([lead, *(sentence for _, sentence in chosen)]))


def _lay_out(passage: str, question: str, answer: str, rng: random.Random) -> WrittenPair:
    (layout,) = rng.choices(tuple(LAYOUTS), weights=tuple(LAYOUTS.values()))
    continued = question[0].lower() + question[1:]
    return WrittenPair(layout.format(passage=passage, question=question, continued=continued), answer)


def _capitalised(text: str) -> str:
    return _SENTENCE_START.sub(lambda letter: letter[0].upper(), text)


def _article(match: re.Match[str]) -> str:
    return f"{match[1]}{'n' if _VOWEL_SOUND.match(match[2]) else ''} "


def _number(value: int) -> str:
    """Commas from five digits on, so that a year stays a year."""
    return f"{value:,}" if value >= 10_000 else str(value)


@cache
def _grammar() -> Grammar:
    source = files("mlflow_llamaduo.service_llm") / "offline_teacher_genres.yaml"
    data = yaml.load(source.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - the safe one, in C
    words = {name: tuple(entries) for name, entries in data["words"].items()}
    return Grammar(words, tuple(_genre(entry) for entry in data["genres"].values()))


def _genre(entry: Mapping[str, Any]) -> Genre:
    return Genre(
        slots=entry["slots"],
        lead=_beat(entry["lead"]),
        beats=tuple(_beat(beat) for beat in entry["beats"]),
        absent=tuple(entry["absent"]),
        ordered=entry.get("ordered", False),
    )


def _beat(entry: Mapping[str, Any]) -> Beat:
    return Beat(tuple(entry["say"]), tuple(_question(question) for question in entry.get("ask", ())))


def _question(entry: Mapping[str, Any]) -> Question:
    form: Form = next(form for form in get_args(Form) if form in entry)
    return Question(tuple(entry["q"]), form, entry[form], entry.get("foil", ""))
