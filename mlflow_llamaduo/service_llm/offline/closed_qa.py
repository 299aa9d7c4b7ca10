"""What `offline/teacher` writes for closed QA: question-answering pairs from a seed, offline.

It plainly is a grammar, not a language model. It expands the genres of `closed_qa.yaml` at
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
from typing import Any, Literal, get_args

from mlflow_llamaduo.service_llm.offline.templates import Filler, WrittenPair, capitalised, read, tuples

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

_NAME = re.compile(r"\{(\w+)\}")


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


def write_pairs(*, seed: int, count: int) -> tuple[WrittenPair, ...]:
    """`count` pairs, deterministic in (seed, count); different seeds give different passages."""
    rng = random.Random(f"offline/teacher {seed}")  # a string: random.Random(-1) repeats random.Random(1)  # noqa: S311
    grammar = _grammar()
    return tuple(_write_pair(grammar, rng) for _ in range(count))


def _write_pair(grammar: Grammar, rng: random.Random) -> WrittenPair:
    """The question is drawn before the passage, which is then made to tell its fact or to leave it out."""
    genre = rng.choice(grammar.genres)
    filler = Filler(grammar.words, genre.slots, rng)
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
    return _lay_out(passage, filler.fill(wording), capitalised(answer) if ask == "sentence" else answer, rng)


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
    return capitalised(" ".join([lead, *(sentence for _, sentence in chosen)]))


def _lay_out(passage: str, question: str, answer: str, rng: random.Random) -> WrittenPair:
    (layout,) = rng.choices(tuple(LAYOUTS), weights=tuple(LAYOUTS.values()))
    continued = question[0].lower() + question[1:]
    return WrittenPair(layout.format(passage=passage, question=question, continued=continued), answer)


@cache
def _grammar() -> Grammar:
    data = read("closed_qa")
    return Grammar(tuples(data["words"]), tuple(_genre(entry) for entry in data["genres"].values()))


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
