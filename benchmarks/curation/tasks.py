"""Rows of the tasks in the No Robots shape, of 70 to 80 words in the mean: nothing planted in them yet.

    closed_qa        a passage and a question, in one of four forms; every seventh answer is Yes, No or the like
    classification   a text and one of 30 lists of 12 to 25 labels, some frequent, some rare, in one of four forms
    summarization    a text under one of three fixed instructions
    short            one of 40 openers and a subject, 15 to 40 words
    long             a passage of 130 to 280 words and what to do with it

A prompt is kept in parts, so that the planter knows what of it is its own, what is the task's and what asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.curation.prose import Prose

OWN, FIXED, ASKS = "own", "fixed", "asks"
Part = tuple[str, str]
"""Whose words they are, and the words."""

SAYS_NOTHING = ("Yes", "No", "The passage does not say.", "Not mentioned")
PASSAGE_FORMS = (
    ("Answer the question from the passage below, in as few words as you can.\n\nPassage: ", "\n\nQuestion: ", ""),
    ("", "\n\n", ""),
    ('Read this:\n\n"', '"\n\nNow answer the following question, using only what you have read. ', ""),
    ("", "\n", " Take the answer from the text above."),
)
ASKING = (
    "What did {0} bring to {1} before the {2}?",
    "When did {0} leave the {2} of {1}?",
    "Who paid for the {2} that {0} wanted?",
    "Is the {2} of {0} older than that of {1}?",
    "Which {2} does {0} think of as the largest?",
    "How many people of {1} were at the {2}?",
    "Why was {0} against the {2} in {1}?",
    "Where was the first {2} of {1} built?",
)
LABEL_FORMS = (
    ("", " Given a list of categories: {labels}, which category does the paragraph belong to?"),
    ("Sort the text into one of these topics: {labels}. Write the topic alone.\n\nText: ", "\n\nTopic:"),
    ("Label the following with one of {labels}: ", ""),
    ("", "\n\nWhich of these fits best? {labels}"),
)
SUMMARY_FORMS = (
    ("Summarize the following article in one or two sentences. Keep to the facts and add nothing.\n\n", ""),
    ("Article:\n", "\n\nWrite a short summary of the article above for a reader who has no time."),
    ("Could you please tell me in a few words what this text is about?\n\n", ""),
)
OPENERS = tuple(
    f"{start} {rest}"
    for start in ("Can you explain to me", "Please write a short text about", "What are some of the best ways to see",
                  "Give me a list of ideas on", "I would like to know more about")
    for rest in ("how", "why it is that", "the way in which", "what happens when", "the history of", "whether",
                 "the main reasons for which", "all that is known of how")
)  # fmt: skip
LISTS = 30


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt in parts, its response, the task, and the form of the prompt, of which there are others."""

    parts: tuple[Part, ...]
    response: str
    task: str
    form: int

    @property
    def prompt(self) -> str:
        """The parts as one text."""
        return "".join(text for _, text in self.parts)


class Tasks:
    """Writes rows of the five tasks."""

    def __init__(self, prose: Prose) -> None:
        self.prose, self.draw = prose, prose.draw
        self._lists = [[prose.topic() for _ in range(self.draw.randint(12, 25))] for _ in range(LISTS)]
        self._shares = [1 / (rank + 1) for rank in range(LISTS)]

    def any(self) -> Text:
        """A row of any task, in the shares that a mixed set has."""
        task = self.draw.choices(tuple(WRITERS), [share for share, _ in WRITERS.values()])[0]
        return self.write(task)

    def write(self, task: str, form: int | None = None) -> Text:
        """A row of a task; in the form of another row, if one is given."""
        return WRITERS[task][1](self, form)

    def passage_group(self, count: int) -> list[Text]:
        """So many different questions on one long passage; in a third of the groups all have the same answer.

        Of two questions of a group at least one content word differs, and of every third just one.
        """
        passage, form = self.prose.text(self.draw.randint(90, 150)), self.draw.randrange(len(PASSAGE_FORMS))
        same = self.draw.choice(SAYS_NOTHING) if self.draw.random() < 1 / 3 else None
        slots, asked = self._slots(), dict[str, None]()
        shape = self.draw.choice(ASKING)
        while len(asked) < count:
            if self.draw.random() < 1 / 3:
                slots = (self.prose.name(), *slots[1:])
            else:
                slots, shape = self._slots(), self.draw.choice(ASKING)
            asked[shape.format(*slots)] = None
        return [self._about(passage, question, form, same) for question in asked]

    def question(self) -> str:
        """A question of six to eleven words, two or three of which are content."""
        return self.draw.choice(ASKING).format(*self._slots())

    def _slots(self) -> tuple[str, str, str]:
        return self.prose.name(), self.prose.name(), self.prose.topic()

    def _about(self, passage: str, question: str, form: int, answer: str | None = None) -> Text:
        before, between, after = PASSAGE_FORMS[form]
        parts = [(FIXED, before), (OWN, passage), (FIXED, between), (ASKS, question), (FIXED, after)]
        answer = answer or self._answer(passage)
        return Text(_without_empty(parts), answer, "closed_qa", form)

    def _answer(self, passage: str) -> str:
        kind = self.draw.random()
        if kind < 1 / 7:
            return self.draw.choice(SAYS_NOTHING)
        if kind < 0.75:
            words = passage.split()
            first = self.draw.randrange(len(words) - 8)
            return " ".join(words[first : first + self.draw.randint(1, 7)]).strip(".,")
        return self.prose.sentence(self.draw.randint(9, 20))

    def closed_qa(self, form: int | None) -> Text:
        form = self.draw.randrange(len(PASSAGE_FORMS)) if form is None else form
        return self._about(self.prose.text(self.draw.randint(42, 60)), self.question(), form)

    def classification(self, form: int | None) -> Text:
        if form is None:
            chosen = self.draw.choices(range(LISTS), self._shares)[0]
            form = chosen * len(LABEL_FORMS) + self.draw.randrange(len(LABEL_FORMS))
        labels, (before, after) = self._lists[form // len(LABEL_FORMS)], LABEL_FORMS[form % len(LABEL_FORMS)]
        text = self.prose.text(self.draw.choice((6, 9, 14, 28, 40, 50)))
        parts = [(FIXED, before), (OWN, text), (FIXED, after)]
        filled = [(role, words.format(labels=", ".join(labels)) if role == FIXED else words) for role, words in parts]
        return Text(_without_empty(filled), self.draw.choice(labels).title(), "classification", form)

    def summarization(self, form: int | None) -> Text:
        form = self.draw.randrange(len(SUMMARY_FORMS)) if form is None else form
        before, after = SUMMARY_FORMS[form]
        parts = [(FIXED, before), (OWN, self.prose.text(self.draw.randint(45, 75))), (FIXED, after)]
        return Text(_without_empty(parts), self.prose.text(self.draw.randint(12, 22)), "summarization", form)

    def short(self, form: int | None) -> Text:
        form = self.draw.randrange(len(OPENERS)) if form is None else form
        opener = OPENERS[form]
        subject = self.prose.text(max(6, self.draw.randint(15, 40) - len(opener.split())))
        parts = [(FIXED, f"{opener} "), (OWN, subject[0].lower() + subject[1:])]
        return Text(_without_empty(parts), self.prose.text(self.draw.randint(20, 50)), "short", form)

    def long(self, form: int | None) -> Text:
        form = self.draw.randrange(2) if form is None else form
        parts = [(OWN, self.prose.text(self.draw.randint(140, 270)))]
        asked = [*parts, (FIXED, "\n\n"), (ASKS, self.question())]
        parts = asked if form else [(FIXED, SUMMARY_FORMS[0][0]), *parts]
        return Text(tuple(parts), self.prose.text(self.draw.randint(10, 35)), "long", form)


WRITERS: Mapping[str, tuple[float, Callable[[Tasks, int | None], Text]]] = {
    "closed_qa": (0.35, Tasks.closed_qa),
    "classification": (0.30, Tasks.classification),
    "summarization": (0.14, Tasks.summarization),
    "short": (0.17, Tasks.short),
    "long": (0.04, Tasks.long),
}


def _without_empty(parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple((role, words) for role, words in parts if words)
