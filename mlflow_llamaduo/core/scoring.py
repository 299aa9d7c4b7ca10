"""From verdicts to a scorecard: means, coverage at a threshold, spread and intervals.

A response's score is the mean over its M judgings; coverage at t is the share of responses scoring at least
t (paper, section 4.1). The unit of chance is the *prompt*: K answers to one prompt are not independent, so
the interval is Student's t over the prompts' means.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from mlflow_llamaduo.core.records import Judgement, Unjudged, Verdict


@dataclass(frozen=True, slots=True)
class Score:
    """One quantity from 0 to 100: mean over responses, standard deviation and 95 % interval over prompts."""

    mean: float
    spread: float
    low: float
    high: float
    coverage_50: float
    coverage_70: float


@dataclass(frozen=True, slots=True)
class Scorecard:
    """All scores of one model on the test prompts, by one judge."""

    judge: str
    prompts: int
    responses: int
    judgings: int
    unjudged: int
    precision: Score
    similarity: Score

    @property
    def judged_share(self) -> float:
        """Share of judgings that gave scores, 0 to 100."""
        return 100.0 * (self.judgings - self.unjudged) / self.judgings if self.judgings else 0.0

    def figures(self) -> dict[str, float]:
        """The scorecard by the names that metrics and gate rules use."""
        return {
            "precision_mean": self.precision.mean,
            "similarity_mean": self.similarity.mean,
            "precision_coverage_50": self.precision.coverage_50,
            "precision_coverage_70": self.precision.coverage_70,
            "similarity_coverage_50": self.similarity.coverage_50,
            "similarity_coverage_70": self.similarity.coverage_70,
            "judged_share": self.judged_share,
        }


NOTHING = Score(mean=0.0, spread=0.0, low=0.0, high=0.0, coverage_50=0.0, coverage_70=0.0)


def score(judgements: Iterable[Judgement]) -> Scorecard:
    """Summarise the judgings of one model by one judge.

    With no usable verdict the scores are `NOTHING` and `judged_share` is 0, which no gate passes.

    Raises:
        ValueError: the judgings come from several judges, whose scales differ (paper, Table 1).
    """
    judgements = tuple(judgements)
    judges = {j.judge for j in judgements}
    if len(judges) > 1:
        raise ValueError(f"one scorecard holds one judge, not {sorted(judges)}")
    verdicts = [j for j in judgements if isinstance(j, Verdict)]
    return Scorecard(
        judge=next(iter(judges), ""),
        prompts=len({prompt_of(j.response_id) for j in judgements}),
        responses=len({j.response_id for j in judgements}),
        judgings=len(judgements),
        unjudged=sum(isinstance(j, Unjudged) for j in judgements),
        precision=_score({v: v.precision for v in verdicts}),
        similarity=_score({v: v.similarity for v in verdicts}),
    )


def prompt_of(response_id: str) -> str:
    """The prompt's part of a response id (`pair_id/sample`)."""
    return response_id.rsplit("/", 1)[0]


def _score(values: dict[Verdict, float]) -> Score:
    if not values:
        return NOTHING
    by_response: dict[str, list[float]] = defaultdict(list)
    for verdict, value in values.items():
        by_response[verdict.response_id].append(value)
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for response_id, repeats in by_response.items():
        by_prompt[prompt_of(response_id)].append(fmean(repeats))
    responses = [fmean(repeats) for repeats in by_response.values()]
    prompts = [fmean(samples) for samples in by_prompt.values()]
    low, high = _interval(prompts)
    return Score(
        mean=fmean(responses),
        spread=stdev(prompts) if len(prompts) > 1 else 0.0,
        low=low,
        high=high,
        coverage_50=_coverage(responses, 50),
        coverage_70=_coverage(responses, 70),
    )


def _coverage(scores: Sequence[float], threshold: float) -> float:
    return 100.0 * sum(s >= threshold for s in scores) / len(scores)


def _interval(prompts: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over prompts, within 0 to 100; the whole range for a single prompt."""
    if len(prompts) < 2:
        return 0.0, 100.0
    from scipy.special import stdtrit  # 60 ms that `llamaduo --help` need not pay; scipy.stats would be a second

    centre, error = fmean(prompts), stdev(prompts) / len(prompts) ** 0.5
    half = float(stdtrit(len(prompts) - 1, 0.975)) * error
    return max(0.0, centre - half), min(100.0, centre + half)
