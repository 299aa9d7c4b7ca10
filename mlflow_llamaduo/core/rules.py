"""What a gate may ask for, by name. Nothing is measured here, so that a configuration is read without numpy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SCORES = ("precision", "similarity")
THRESHOLDS = (50.0, 70.0)
"""Of coverage, as in the paper."""

By = Literal["mean", "lower_bound"]

FIGURES = (
    *(f"{score}_mean" for score in SCORES),
    *(f"{score}_coverage_<threshold>" for score in SCORES),
    *(f"{score}_perf_matching" for score in SCORES),
    *(f"{score}_over_<baseline>" for score in SCORES),
    *(f"{score}_worst_slice" for score in SCORES),
    "win_rate_over_<opponent>",
    "judged_share",
)
"""What a rule may ask for. Means, coverage, slices, win rate and share are 0 to 100, differences -100 to 100."""

BASELINES = ("base", "few_shot", "service_llm", "champion")
OPPONENTS = ("reference", "service_llm", "champion")

_FIGURE = re.compile(
    r"(?P<score>precision|similarity)_"
    r"(?:(?P<kind>mean|perf_matching|worst_slice)|coverage_(?P<threshold>\d{1,2}|100)|over_(?P<baseline>\w+))"
    r"|win_rate_over_(?P<opponent>\w+)|(?P<share>judged_share)"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure's name, taken apart."""

    kind: str
    score: str = ""
    threshold: float = 0.0
    other: str = ""

    @staticmethod
    def read(name: str) -> "Figure":
        """Take a name apart.

        Raises:
            ValueError: there is no such figure.
        """
        match = _FIGURE.fullmatch(name)
        if match is None:
            raise ValueError(f"unknown figure {name!r}; known: {', '.join(FIGURES)}")
        found = match.groupdict()
        if found["share"]:
            return Figure("judged_share")
        if found["opponent"]:
            return Figure("win_rate", other=_among(name, found["opponent"], OPPONENTS))
        score = str(found["score"])
        if found["threshold"]:
            return Figure("coverage", score, threshold=float(found["threshold"]))
        if found["baseline"]:
            return Figure("over", score, other=_among(name, found["baseline"], BASELINES))
        return Figure(str(found["kind"]), score, other="service_llm" if found["kind"] == "perf_matching" else "")


@dataclass(frozen=True, slots=True)
class GateRule:
    """`figure`, or the lower bound of its 95 % interval, must be at least `at_least`."""

    figure: str
    at_least: float
    by: By = "mean"


def _among(name: str, found: str, known: Sequence[str]) -> str:
    if found not in known:
        raise ValueError(f"unknown figure {name!r}: {found} is none of {', '.join(known)}")
    return found
