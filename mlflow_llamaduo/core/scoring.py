"""From verdicts to a scorecard: one row of scores a response, and figures of them by prompt.

A response's score is the mean over its judgings; coverage at t is the share of responses scoring at least t (paper,
section 4.1). Figures are means over *prompts* of the mean over a prompt's responses: where every prompt has K judged
responses that is the paper's mean over responses, and where some are unjudged no prompt counts for more than another.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean

import numpy as np
import numpy.typing as npt

from mlflow_llamaduo.core.interval import Estimate, Floats, of_scores
from mlflow_llamaduo.core.records import Judgement, Response, Unjudged, Verdict
from mlflow_llamaduo.core.rules import SCORES, THRESHOLDS

Places = npt.NDArray[np.int64]

FEWEST_PROMPTS_APART = 15
"""Prompts from which thirds by length are told apart: five each."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One response that was judged: means over its verdicts (0 to 100), how many, and the slices it is in."""

    response_id: str
    similarity: float
    precision: float
    verdicts: int
    slices: tuple[str, ...] = ()
    again: bool = False
    """Says to the letter what an earlier response to the same prompt says: no evidence of its own."""


@dataclass(frozen=True)
class Scorecard:
    """All scores of one model on the test prompts, by one judge. Responses without a verdict are only counted."""

    judge: str
    prompts: int
    responses: int
    judgings: int
    unjudged: int
    scored: tuple[Scored, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    """Prompts of each slice, those without a verdict included."""

    @cached_property
    def table(self) -> "Table":
        """The scores as arrays."""
        return replace(Table.of(self.scored), sizes=self.sizes)

    @property
    def judged_share(self) -> float:
        """Share of judgings that gave scores, 0 to 100."""
        return 100.0 * (self.judgings - self.unjudged) / self.judgings if self.judgings else 0.0

    @property
    def precision(self) -> Estimate:
        """Mean precision; with no usable verdict it is 0, from 0 prompts."""
        return self.table.mean("precision")

    @property
    def similarity(self) -> Estimate:
        """The same of similarity."""
        return self.table.mean("similarity")

    def coverage(self, score: str, threshold: float) -> Estimate:
        """Share of responses with at least `threshold`, 0 to 100."""
        return self.table.coverage(score, threshold)

    @property
    def slices(self) -> dict[str, "Table"]:
        """The scores of each slice by its name: `category=...`, `source=...`, `length=short`."""
        return {name: self.table.part(name) for name in self.table.names}

    def figures(self, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
        """The scorecard by the names that metrics and gate rules use."""
        means = {f"{score}_mean": float(self.table.mean(score).value) for score in SCORES}
        coverages = {
            f"{score}_coverage_{threshold:g}": float(self.coverage(score, threshold).value)
            for score in SCORES
            for threshold in thresholds
        }
        return {**means, **coverages, "judged_share": self.judged_share}


@dataclass(frozen=True)
class Table:
    """Scores as arrays: (..., responses), with the place of each response's prompt.

    Leading axes hold other outcomes that the same responses could have had: figures are computed for all at once.
    """

    prompts: tuple[str, ...]
    owner: Places
    scores: Mapping[str, Floats]
    slices: tuple[tuple[str, ...], ...]
    own: npt.NDArray[np.bool_]
    """Whether a response is evidence of its own."""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def size(self, name: str) -> int:
        """Prompts of a slice."""
        return max(self.sizes.get(name, 0), len(self.part(name).prompts))

    @staticmethod
    def of(rows: Iterable[Scored]) -> "Table":
        """Prompts in the order of their first response."""
        rows = tuple(rows)
        places: dict[str, int] = {}
        owner = np.array([places.setdefault(prompt_of(row.response_id), len(places)) for row in rows], dtype=np.int64)
        scores = {score: np.array([getattr(row, score) for row in rows], dtype=np.float64) for score in SCORES}
        own = np.array([not row.again for row in rows], dtype=np.bool_)
        return Table(tuple(places), owner, scores, tuple(row.slices for row in rows), own)

    @property
    def names(self) -> list[str]:
        """The slices that there are."""
        return sorted({name for own in self.slices for name in own})

    def part(self, name: str) -> "Table":
        """The responses of one slice."""
        mine = [place for place, own in enumerate(self.slices) if name in own]
        kept, owner = np.unique(self.owner[mine], return_inverse=True)
        return Table(
            tuple(self.prompts[place] for place in kept),
            owner,
            {score: values[..., mine] for score, values in self.scores.items()},
            tuple(self.slices[place] for place in mine),
            self.own[mine],
        )

    @cached_property
    def _weights(self) -> Floats:
        weights = np.zeros((len(self.owner), len(self.prompts)))
        weights[np.arange(len(self.owner)), self.owner] = 1.0
        return np.asarray(weights / np.maximum(weights.sum(axis=0), 1))

    def by_prompt(self, values: Floats) -> Floats:
        """Means over each prompt's responses: (..., responses) to (..., prompts)."""
        return np.asarray(values @ self._weights)

    def on(self, score: str, prompts: Sequence[str]) -> Floats:
        """A score by prompt, for these of the prompts in this order."""
        places = {prompt: place for place, prompt in enumerate(self.prompts)}
        return self.by_prompt(self.scores[score])[..., [places[prompt] for prompt in prompts]]

    def mean(self, score: str) -> Estimate:
        """The mean of a score, 0 to 100."""
        return self._estimate(self.scores[score])

    def coverage(self, score: str, threshold: float) -> Estimate:
        """Share of responses with at least `threshold`, 0 to 100."""
        return self._estimate(np.where(self.scores[score] >= threshold - 1e-9, 100.0, 0.0))

    def _estimate(self, values: Floats) -> Estimate:
        if not self.prompts:
            return NOTHING
        return of_scores(self.by_prompt(values), int(self.own.sum()))


NOTHING = Estimate(0.0, 0.0, 0.0, 0.0, 0)


def score(judgements: Iterable[Judgement], responses: Iterable[Response] = ()) -> Scorecard:
    """Summarise the judgings of one model by one judge.

    Args:
        judgements: the verdicts, and those that have none.
        responses: what was judged: it says which slice a response is in.

    Raises:
        ValueError: the judgings come from several judges, whose scales differ (paper, Table 1).
    """
    judgements = tuple(judgements)
    judges = {j.judge for j in judgements}
    if len(judges) > 1:
        raise ValueError(f"one scorecard holds one judge, not {sorted(judges)}")
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for judgement in judgements:
        if isinstance(judgement, Verdict):
            verdicts[judgement.response_id].append(judgement)
    responses = tuple(responses)
    slices, repeated = slices_of(responses), _repeated(r for r in responses if r.id in verdicts)
    return Scorecard(
        judge=next(iter(judges), ""),
        prompts=len({prompt_of(j.response_id) for j in judgements}),
        responses=len({j.response_id for j in judgements}),
        judgings=len(judgements),
        unjudged=sum(isinstance(j, Unjudged) for j in judgements),
        scored=tuple(
            Scored(
                response_id,
                fmean(v.similarity for v in own),
                fmean(v.precision for v in own),
                len(own),
                slices.get(prompt_of(response_id), ()),
                response_id in repeated,
            )
            for response_id, own in sorted(verdicts.items())
        ),
        sizes=dict(Counter(name for names in slices.values() for name in names)),
    )


def prompt_of(response_id: str) -> str:
    """The prompt's part of a response id (`pair_id/sample`)."""
    return response_id.rsplit("/", 1)[0]


def slices_of(responses: Iterable[Response]) -> dict[str, tuple[str, ...]]:
    """The slices of each prompt by its id: category and source where there are several, and thirds by length.

    Length is that of the prompt in characters; thirds are made from 15 prompts on.
    """
    prompts = {prompt_of(response.id): response for response in responses}
    slices: dict[str, list[str]] = {prompt: [] for prompt in prompts}
    for name in ("category", "source"):
        kinds = {getattr(response, name) for response in prompts.values()}
        if len(kinds) > 1:
            for prompt, response in prompts.items():
                slices[prompt].append(f"{name}={getattr(response, name) or 'none'}")
    if len(prompts) >= FEWEST_PROMPTS_APART:
        order = sorted(prompts, key=lambda prompt: (len(prompts[prompt].instruction), prompt))
        for place, prompt in enumerate(order):
            slices[prompt].append(f"length={('short', 'middle', 'long')[3 * place // len(order)]}")
    return {prompt: tuple(own) for prompt, own in slices.items()}


def _repeated(responses: Iterable[Response]) -> set[str]:
    """Ids of the responses whose text another response to the same prompt has already."""
    first: dict[tuple[str, str], str] = {}
    return {r.id for r in responses if first.setdefault((r.pair_id, r.text), r.id) != r.id}


def perf_matching(best_local: float, best_service_llm: float) -> float:
    """100 x best local model / best service LLM (paper, Table 1); it may exceed 100. Infinite beside a zero."""
    return 100.0 * best_local / best_service_llm if best_service_llm else float("inf")
