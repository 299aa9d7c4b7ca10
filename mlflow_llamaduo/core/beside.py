"""Two models' answers to the same prompts, side by side, where they differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with the judge's mean scores, 0 to 100."""

    text: str
    precision: float
    similarity: float

    @property
    def points(self) -> float:
        """Both scores together, 0 to 200."""
        return self.precision + self.similarity


@dataclass(frozen=True, slots=True)
class Asked:
    """One test prompt, its reference, and a model's judged answers to it, at least one."""

    instruction: str
    reference: str
    answers: tuple[Answer, ...]

    @property
    def points(self) -> float:
        """The mean of the answers' points, 0 to 200."""
        return fmean(answer.points for answer in self.answers)

    @property
    def typical(self) -> Answer:
        """The answer whose points are nearest to their mean: what is shown should not be the luckiest of K."""
        return min(self.answers, key=lambda answer: abs(answer.points - self.points))


@dataclass(frozen=True, slots=True)
class Beside:
    """What two models said to one prompt; `apart` is candidate less champion, -200 to 200.

    Without a champion `apart` is what the candidate lacks of 200, and negative.
    """

    instruction: str
    reference: str
    candidate: Answer
    champion: Answer | None
    apart: float


def beside(own: Mapping[str, Asked], its: Mapping[str, Asked] | None, count: int) -> tuple[Beside, ...]:
    """At most `count` prompts, those first where the means of both scores together differ most.

    Args:
        own: the candidate's answers by prompt.
        its: the champion's; prompts that only one of them was asked are left out. None: the candidate's worst.
        count: how many prompts.
    """
    if its is None:
        found = [_pair(asked, None) for asked in own.values()]
    else:
        found = [_pair(asked, its[prompt]) for prompt, asked in own.items() if prompt in its]
    return tuple(sorted(found, key=lambda pair: -abs(pair.apart))[:count])


def _pair(own: Asked, its: Asked | None) -> Beside:
    apart = own.points - (its.points if its else 200.0)
    return Beside(own.instruction, own.reference, own.typical, its.typical if its else None, apart)


def asked(rows: Sequence[Mapping[str, str]], scores: Mapping[str, tuple[float, float]]) -> dict[str, Asked]:
    """The judged ones of some responses, by prompt.

    Args:
        rows: `id` (`prompt/sample`), `instruction`, `reference`, `response`.
        scores: precision and similarity by response id; a response without them is left out.
    """
    found: dict[str, Asked] = {}
    for row in rows:
        if row["id"] not in scores:
            continue
        prompt = row["id"].rpartition("/")[0]
        before = found[prompt].answers if prompt in found else ()
        answer = Answer(row["response"], *scores[row["id"]])
        found[prompt] = Asked(row["instruction"], row["reference"], (*before, answer))
    return found
