"""How far a judge can be trusted: its scores beside people's, its own, other judges', and the length of what it read.

    scores by judge and response, labels by response, answers  ->  measure  ->  Report

The unit is the response, and its score the mean over its judgings, as in `scoring`. What has no score is counted and
left out; the statistics are those of `agreement`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Literal

from mlflow_llamaduo.core.agreement import Agreement, Correlation, Means, Spread, Swap, agree, correlate, spread
from mlflow_llamaduo.core.records import Response

Quantity = Literal["similarity", "precision"]
QUANTITIES: tuple[Quantity, ...] = ("similarity", "precision")


@dataclass(frozen=True, slots=True)
class Scores:
    """What one judge gave one response, 0 to 100, judging by judging; `unjudged` of them gave nothing."""

    similarity: tuple[float, ...]
    precision: tuple[float, ...]
    unjudged: int = 0

    def of(self, quantity: Quantity) -> tuple[float, ...]:
        """The scores of one quantity."""
        return self.similarity if quantity == "similarity" else self.precision


@dataclass(frozen=True, slots=True)
class Judged:
    """One response with what each judge gave it, by name, and the labels of people, 0 to 100, each a person's."""

    id: str
    response: Response
    scores: Mapping[str, Scores]
    people: Mapping[Quantity, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response beside its scores: what tells its prompt apart, and the characters of it and of its reference."""

    prompt: str
    response: int
    reference: int


@dataclass(frozen=True, slots=True)
class OneScore:
    """A judge and one quantity: beside people, beside itself, and beside lengths."""

    quantity: Quantity
    people: Agreement
    spread: Spread
    length: Correlation
    relative_length: Correlation


@dataclass(frozen=True, slots=True)
class OneJudge:
    """A judge: responses with at least one score, judgings, and judgings that gave none."""

    judge: str
    judged: int
    judgings: int
    unjudged: int
    scores: tuple[OneScore, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """Two judges and one quantity."""

    one: str
    other: str
    quantity: Quantity
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is known of the judges of `responses` responses."""

    responses: int
    thresholds: tuple[float, ...]
    judges: tuple[OneJudge, ...]
    between: tuple[Between, ...]
    swaps: tuple[Swap, ...] = ()
    notes: tuple[str, ...] = ()


def measure(
    judges: Mapping[str, Mapping[str, Scores]],
    people: Mapping[Quantity, Means],
    answers: Mapping[str, Answer],
    thresholds: Sequence[float],
) -> Report:
    """All figures that need no further judging.

    Args:
        judges: scores by judge and response id.
        people: people's labels by quantity and response id.
        answers: every response that there is, judged or not, by id.
        thresholds: scores at which answers are called good enough.
    """
    prompts = {key: answer.prompt for key, answer in answers.items()}
    means = {name: {quantity: _means(own, quantity) for quantity in QUANTITIES} for name, own in judges.items()}
    return Report(
        len(answers),
        tuple(thresholds),
        tuple(_one_judge(name, own, people, answers, thresholds) for name, own in judges.items()),
        tuple(
            Between(
                one, other, q, agree(means[one][q], means[other][q], thresholds, sides=(one, other), prompts=prompts)
            )
            for one, other in combinations(judges, 2)
            for q in QUANTITIES
        ),
    )


def _one_judge(
    name: str,
    judged: Mapping[str, Scores],
    people: Mapping[Quantity, Means],
    answers: Mapping[str, Answer],
    thresholds: Sequence[float],
) -> OneJudge:
    all_ = judged.values()
    return OneJudge(
        name,
        sum(1 for scores in all_ if scores.similarity or scores.precision),
        sum(max(len(scores.similarity), len(scores.precision)) + scores.unjudged for scores in all_),
        sum(scores.unjudged for scores in all_),
        tuple(_one_score(quantity, judged, people.get(quantity, {}), answers, thresholds) for quantity in QUANTITIES),
    )


def _one_score(
    quantity: Quantity,
    judged: Mapping[str, Scores],
    labels: Means,
    answers: Mapping[str, Answer],
    thresholds: Sequence[float],
) -> OneScore:
    means = _means(judged, quantity)
    prompts = {key: answers[key].prompt for key in means}
    length = {key: float(answers[key].response) for key in means}
    relative = {key: answers[key].response / answers[key].reference for key in means if answers[key].reference}
    sides = ("the judge", "the length")
    return OneScore(
        quantity,
        agree(means, labels, thresholds, prompts=prompts),
        spread([scores.of(quantity) for scores in judged.values()], thresholds),
        correlate(means, length, sides=sides, prompts=prompts),
        correlate(means, relative, sides=sides, prompts=prompts),
    )


def _means(judged: Mapping[str, Scores], quantity: Quantity) -> Means:
    return {key: fmean(own) for key, scores in judged.items() if (own := scores.of(quantity))}
