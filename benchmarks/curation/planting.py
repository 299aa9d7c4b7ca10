"""Rows with exact copies, near copies and leaks planted among them, and the truth about each.

    exact     of 1 % of the rows there is one copy, or there are two
    near95    of 1 % one, at a Jaccard of about 0.95 over the words of prompt and response: words replaced, dropped,
              or put in anywhere, the task's own words not spared; case and punctuation touched in a third of them
    near90    of 0.5 % one, at about 0.90
    questions 1 % are two to ten different questions on one passage, some of them but a word apart; in a third of the
              groups all have the same answer
    leak      a third, a half or all of a test prompt, put into another row's text
    template  rows in the form of a test prompt (labels, instruction, opener), with nothing else of it

All others are plain rows, many of them with equal short answers. What is edited in a near copy is never an answer of
fewer than eight words, nor is a word of a short question replaced: that would be another row.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.curation.prose import Prose
from benchmarks.curation.tasks import ASKS, FIXED, OWN, Tasks, Text

TEST_CLASSES = {"15 to 39": (15, 39, 80), "40 to 149": (40, 149, 80), "150 to 300": (150, 300, 40)}
"""Words of the test prompts: least, most, and how many prompts there are."""
SHARES = {"a third": 1 / 3, "half": 1 / 2, "all": 1.0}
ROWS_A_LEAK = 80_000
"""In so many rows every share of every test prompt leaks once; in fewer too."""
_QUESTION = re.compile(r"[^.!?\n]+\?")
_SHORT_QUESTION = 12
"""Words from which on a question is one over a list of labels, in which a word may be another."""
FILLERS = ("exactly", "actually", "really", "then", "also")


@dataclass(frozen=True, slots=True)
class Truth:
    """What a row is; `group` is that of its copies (or of a leak, the class of the test prompt and the share)."""

    kind: str
    group: str = ""


@dataclass(frozen=True)
class Planted:
    """Rows in a random order, each with an `id`; what each is; and the test rows."""

    rows: list[dict[str, Any]]
    truths: dict[str, Truth]
    test: list[dict[str, Any]]


def plant(count: int, seed: int = 0) -> Planted:
    """Write about `count` rows and 200 test rows."""
    tasks = Tasks(Prose(seed))
    test = list(_test(tasks))
    made = [*_groups(tasks, count), *_leaks(tasks, test, max(1, count // ROWS_A_LEAK)), *_templates(tasks, test)]
    made += [(tasks.any(), Truth("plain")) for _ in range(count - len(made))]
    tasks.draw.shuffle(made)
    named = [(f"r{number}", text, truth) for number, (text, truth) in enumerate(made)]
    return Planted(
        [_row(name, text) for name, text, _ in named],
        {name: truth for name, _, truth in named},
        [_row(f"t{number}", text) for number, (_, text) in enumerate(test)],
    )


def jaccard(one: Text, other: Text) -> float:
    """Of the words of prompt and response together, case and punctuation ignored."""
    left, right = (set(re.findall(r"\w+", f"{text.prompt} {text.response}".lower())) for text in (one, other))
    return len(left & right) / len(left | right)


def _row(name: str, text: Text) -> dict[str, Any]:
    turns = [{"role": "user", "content": text.prompt}, {"role": "assistant", "content": text.response}]
    return {"id": name, "messages": turns, "category": text.task}


def _test(tasks: Tasks) -> Iterator[tuple[str, Text]]:
    for name, (least, most, wanted) in TEST_CLASSES.items():
        found = 0
        while found < wanted:
            text = tasks.any()
            if least <= len(text.prompt.split()) <= most:
                found += 1
                yield name, text


def _groups(tasks: Tasks, count: int) -> Iterator[tuple[Text, Truth]]:
    for number in range(count // 100):
        text = tasks.any()
        yield from ((text, Truth("exact", f"e{number}")) for _ in range(tasks.draw.choice((2, 2, 3))))
    for kind, near, wanted in (("near95", 0.95, count // 100), ("near90", 0.90, count // 200)):
        for number in range(wanted):
            text = tasks.any()
            while (copy := near_copy(text, near, tasks.prose)) is None:
                text = tasks.any()
            yield from ((each, Truth(kind, f"{kind} {number}")) for each in (text, copy))
    asked = 0
    while asked < count // 100:
        group = tasks.passage_group(tasks.draw.randint(2, 10))
        asked += len(group)
        yield from ((text, Truth("questions")) for text in group)


def near_copy(text: Text, near: float, prose: Prose) -> Text | None:
    """The row with so many words changed that it is `near` its original, give or take 0.02; None where that fails."""
    copy = text
    for _ in range(40):
        changed = _edited(copy, prose)
        reached = jaccard(text, changed)
        if reached >= near - 0.02:
            copy = changed
        if jaccard(text, copy) <= near + 0.005:
            return _touched(copy, prose.draw) if prose.draw.random() < 1 / 3 else copy
    return None


def _edited(text: Text, prose: Prose) -> Text:
    """One word replaced, dropped or put in; every word is as likely as any other."""
    sizes = [len(words.split()) for _, words in text.parts]
    answer = len(text.response.split())
    sizes.append(answer if answer >= 8 else 0)
    which = prose.draw.choices(range(len(sizes)), sizes)[0]
    if which == len(text.parts):
        return Text(text.parts, _edit(text.response, prose), text.task, text.form)
    role, words = text.parts[which]
    changed = _filled(words, prose.draw) if role == ASKS else _edit(words, prose)
    return Text((*text.parts[:which], (role, changed), *text.parts[which + 1 :]), text.response, text.task, text.form)


def _edit(text: str, prose: Prose) -> str:
    """Spaces and line breaks stay as they are, and so do short questions."""
    asked = [each.span() for each in _QUESTION.finditer(text) if len(each.group().split()) < _SHORT_QUESTION]
    spans = (match.span() for match in re.finditer(r"\w+", text))
    places = [span for span in spans if not any(first <= span[0] < last for first, last in asked)]
    if not places:
        return text
    first, last = prose.draw.choice(places)
    kind = prose.draw.random()
    word = prose.topic() if kind < 0.7 else prose.words(1)[0]
    if kind < 0.5:
        return text[:first] + word + text[last:]
    if kind < 0.75:
        return text[:first] + text[last:].removeprefix(" ")
    return f"{text[:first]}{word} {text[first:]}"


def _filled(question: str, draw: random.Random) -> str:
    words = question.split(" ")
    place = draw.randrange(1, len(words))
    return " ".join([*words[:place], draw.choice(FILLERS), *words[place:]])


def _touched(text: Text, draw: random.Random) -> Text:
    """Case and punctuation changed, words not."""

    def touch(words: str) -> str:
        kind = draw.random()
        if kind < 0.25:
            return words.lower()
        if kind < 0.5:
            return words.replace(",", "", 1)
        if kind < 0.75:
            return words.replace(". ", "! ", 1)
        return words.replace(". ", ", ", 1)

    return Text(tuple((role, touch(words)) for role, words in text.parts), text.response, text.task, text.form)


def _leaks(tasks: Tasks, test: list[tuple[str, Text]], times: int) -> Iterator[tuple[Text, Truth]]:
    for name, prompt in test:
        for share, part in SHARES.items():
            for _ in range(times):
                host = tasks.any()
                while host.task == "long":
                    host = tasks.any()
                piece = quoted(prompt, part, tasks.draw)
                yield _with_quote(host, piece, tasks.draw), Truth("leak", f"{name}, {share}")


def quoted(text: Text, share: float, draw: random.Random) -> str:
    """So much of the prompt's words in one piece: taken from what is its own, as far as that reaches."""
    if share == 1:
        return text.prompt
    wanted = -int(-share * len(text.prompt.split()) // 1)
    own = max((words for role, words in text.parts if role != FIXED), key=len).split()
    first = draw.randrange(max(1, len(own) - wanted + 1))
    return " ".join(own[first : first + wanted])


def _with_quote(host: Text, piece: str, draw: random.Random) -> Text:
    """The piece between two sentences of the host's own text, or in front of it."""
    which = next(number for number, (role, _) in enumerate(host.parts) if role == OWN)
    sentences = host.parts[which][1].split(". ")
    place = draw.randrange(len(sentences))
    before = "".join(f"{sentence}. " for sentence in sentences[:place])
    mixed = f"{before}{piece} {'. '.join(sentences[place:])}"
    parts = (*host.parts[:which], (OWN, mixed), *host.parts[which + 1 :])
    return Text(parts, host.response, host.task, host.form)


def _templates(tasks: Tasks, test: Iterable[tuple[str, Text]]) -> Iterator[tuple[Text, Truth]]:
    return ((tasks.write(text.task, text.form), Truth("template")) for _, text in test for _ in range(2))
