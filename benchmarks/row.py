"""One line of the tables of benchmarks, and how far its figures go."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

COLUMNS = ("benchmark", "figure", "peer", "ratio", "limit", "ratio")
Z = 1.96
"""A 95 % interval is so many standard errors to each side."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The lowest and the highest of n turns, or the 95 % interval of what n trials have shown; None: not kept."""

    n: int = 1
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure over a peer's or the limit's, and the lowest and the highest of those of single turns."""

    at: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.at:.2f}" if self.low is None else f"{self.at:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure beside a peer's and the limit's, all of one run and in one unit; without a name, there is none.

    A ratio that is not given is that of the two figures. It is given where turns show how far it goes, or where the
    figures were kept rounded.
    """

    name: str
    figure: float
    unit: str
    peer: str = ""
    peer_figure: float = 0.0
    limit: str = ""
    limit_figure: float = 0.0
    bar: Bar = Bar()
    peer_ratio: Ratio | None = None
    limit_ratio: Ratio | None = None

    def __str__(self) -> str:
        return table_line(self.name, self.measured, *self.beside_peer, *self.beside_limit)

    @property
    def measured(self) -> str:
        """The figure with its bar: `0.34 s (0.33 to 0.36, n=7)`."""
        ends = (self.bar.low, self.bar.high)
        far = "".join(
            f"{number(end)}{join}" for end, join in zip(ends, (" to ", ", "), strict=True) if end is not None
        )
        return f"{shown(self.figure, self.unit)} ({far}n={self.bar.n:,})"

    @property
    def beside_peer(self) -> tuple[str, str]:
        """The peer with its figure, and the ratio to it."""
        return self._beside(self.peer, self.peer_figure, self.peer_ratio)

    @property
    def beside_limit(self) -> tuple[str, str]:
        """The limit with its figure, and the ratio to it."""
        return self._beside(self.limit, self.limit_figure, self.limit_ratio)

    def _beside(self, name: str, figure: float, ratio: Ratio | None) -> tuple[str, str]:
        if not name:
            return "-", "-"
        found = ratio or (Ratio(self.figure / figure) if figure else "-")
        return f"{name} {shown(figure, self.unit)}", str(found)


Turns = Sequence[float]


def of_turns(
    name: str,
    unit: str,
    ours: Turns,
    peer: tuple[str, Turns] | None = None,
    limit: tuple[str, Turns] | None = None,
    best: Callable[[Turns], float] = median,
) -> Row:
    """What was measured some times in turns with a peer and a limit: turn by turn, a busy moment hits all alike."""
    bar = Bar(len(ours), min(ours), max(ours)) if len(ours) > 1 else Bar()
    (peer_name, theirs), (limit_name, bound) = peer or ("", ()), limit or ("", ())
    figures = [best(turns) if turns else 0.0 for turns in (ours, theirs, bound)]
    ratios = _over(ours, theirs, best), _over(ours, bound, best)
    return Row(name, figures[0], unit, peer_name, figures[1], limit_name, figures[2], bar, *ratios)


def _over(ours: Turns, theirs: Turns, best: Callable[[Turns], float]) -> Ratio | None:
    if len(ours) != len(theirs) or len(ours) < 2:
        return None
    ratios = [own / its for own, its in zip(ours, theirs, strict=True)]
    return Ratio(best(ours) / best(theirs), min(ratios), max(ratios))


def of_share(percent: float, trials: int) -> Bar:
    """Wilson's 95 % interval of a share, in percent; it says something of 0 % and of 100 %, too."""
    share, odds = percent / 100, Z**2 / trials
    middle = (share + odds / 2) / (1 + odds)
    reach = math.sqrt(odds * (share * (1 - share) + odds / 4)) / (1 + odds)
    return Bar(trials, *(round(100 * end, 6) for end in (max(0.0, middle - reach), middle + reach)))


def of_count(count: int, trials: int) -> Bar:
    """The same of how many of the trials, not of their share."""
    bar = of_share(100 * count / trials, trials)
    return Bar(trials, *(end and end / 100 * trials for end in (bar.low, bar.high)))


def of_mean(values: Sequence[float]) -> Bar:
    """The 95 % interval of a mean of many independent trials; of one, nothing is known."""
    if len(values) < 2:
        return Bar()
    middle, reach = fmean(values), Z * stdev(values) / math.sqrt(len(values))
    return Bar(len(values), middle - reach, middle + reach)


def table_line(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def shown(figure: float, unit: str) -> str:
    """A figure with its unit: `0.27 s`, `97.4 %`, `48,210 a second`."""
    return f"{number(figure)} {unit}"


def number(figure: float) -> str:
    """Three digits, or all of those before the point."""
    digits = 2 if abs(figure) < 10 else 1 if abs(figure) < 100 else 0
    text = f"{figure:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if figure == int(figure) and digits else text
