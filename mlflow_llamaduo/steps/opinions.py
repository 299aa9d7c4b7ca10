"""What a judge report is made of, gathered from files and runs: scores, labels, and responses to ask about again.

Of a response nothing is kept but its scores, two lengths and two digests, so that there may be very many; texts are
kept of an even sample only. An id stands for one response: scores of two different texts are not compared.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from mlflow_llamaduo.core.records import Response, digest
from mlflow_llamaduo.core.trust import QUANTITIES, Answer, Judged, Quantity, Scores
from mlflow_llamaduo.coverage.rows import shown
from mlflow_llamaduo.files import each_jsonl
from mlflow_llamaduo.service_llm.replies import points

T = TypeVar("T")


class Evenly(Generic[T]):
    """At most `count` of the things that come, evenly spaced, however many will come; twice as many are held."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[T] = []
        self._came = 0
        self._every = 1

    def add(self, thing: T) -> None:
        """One more has come."""
        if self._count and self._came % self._every == 0:
            self._held.append(thing)
            if len(self._held) > 2 * self._count:
                self._held, self._every = self._held[::2], 2 * self._every
        self._came += 1

    @property
    def chosen(self) -> list[T]:
        """Those that were chosen, in the order in which they came."""
        held = len(self._held)
        wanted = min(self._count, held)
        return [self._held[place * held // wanted] for place in range(wanted)]


class Opinions:
    """Scores by judge and response, labels by response, and a sample of `sample` responses that could be swapped."""

    def __init__(self, sample: int) -> None:
        self.judges: dict[str, dict[str, Scores]] = {}
        self.people: dict[Quantity, dict[str, list[float]]] = {quantity: {} for quantity in QUANTITIES}
        self.answers: dict[str, Answer] = {}
        self._contents: dict[str, str] = {}
        self._sample: Evenly[Response] = Evenly(sample)

    @property
    def sample(self) -> list[Response]:
        """Responses that differ from their reference, evenly chosen."""
        return self._sample.chosen

    def add(self, judged: Judged) -> None:
        """Scores and labels of one response; what a judge has scored before stays.

        Raises:
            ValueError: the id is another response's.
        """
        response, key = judged.response, judged.id
        content = digest(response.instruction, response.reference, response.text)
        if self._contents.setdefault(key, content) != content:
            raise ValueError(f"id {shown(key)} is another response elsewhere: verdicts on two texts do not compare")
        if key not in self.answers:
            self.answers[key] = Answer(digest(response.instruction), len(response.text), len(response.reference))
            if response.text.strip() and response.reference.strip() and response.text != response.reference:
                self._sample.add(response)
        for name, scores in judged.scores.items():
            self.judges.setdefault(name, {}).setdefault(key, scores)
        for quantity, labels in judged.people.items():
            self.label(quantity, key, labels)

    def label(self, quantity: Quantity, key: str, labels: Iterable[float]) -> None:
        """What people gave one response."""
        if labels := list(labels):
            self.people[quantity].setdefault(key, []).extend(labels)

    def add_file(self, path: Path, judge: str) -> None:
        """The rows of a file that `llamaduo judge` wrote.

        Args:
            path: the file.
            judge: who judged the rows that do not say it.

        Raises:
            DataError: some rows are not such rows, with file, line and reason of every one.
        """

        def add(row: Any) -> None:
            judged = _judged(row, judge)
            for name in judged.scores:
                if judged.id in self.judges.get(name, ()):
                    raise ValueError(f"{shown(name)} has judged id {shown(judged.id)} in an earlier row")
            self.add(judged)

        for _ in each_jsonl(path, add):
            pass


def _judged(row: Any, judge: str) -> Judged:
    fields = ("id", "instruction", "reference", "response")
    missing = [field for field in fields if not isinstance(row, dict) or not isinstance(row.get(field), str)]
    if missing:
        raise ValueError(f"no text under {', '.join(missing)}")
    verdicts, named = row.get("verdicts"), row.get("judge")
    if not isinstance(verdicts, list):
        raise ValueError("no list under verdicts: `llamaduo judge` writes one")
    response = Response(row["id"], 0, row["instruction"], row["reference"], row["response"], 0)
    scores = _scores(verdicts)
    return Judged(row["id"], response, {named if isinstance(named, str) and named.strip() else judge: scores})


def _scores(verdicts: list[Any]) -> Scores:
    scored: list[tuple[float, float]] = []
    for number, verdict in enumerate(verdicts, start=1):
        if isinstance(verdict, dict) and "unjudged" in verdict:
            continue
        similarity, precision = (points(verdict.get(q)) if isinstance(verdict, dict) else None for q in QUANTITIES)
        if similarity is None or precision is None:
            raise ValueError(f"verdict {number}: similarity and precision are not two numbers from 0 to 100")
        scored.append((similarity, precision))
    return Scores(tuple(s for s, _ in scored), tuple(p for _, p in scored), len(verdicts) - len(scored))
