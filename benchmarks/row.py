"""One line of the table of benchmarks."""

from dataclasses import dataclass

COLUMNS = ("benchmark", "figure", "peer", "ratio", "limit", "ratio")


@dataclass(frozen=True, slots=True)
class Row:
    """A figure beside a peer's and the limit's, all of one run and in one unit; without a name, there is none."""

    name: str
    figure: float
    unit: str
    peer: str = ""
    peer_figure: float = 0.0
    limit: str = ""
    limit_figure: float = 0.0

    def __str__(self) -> str:
        return table_line(
            self.name,
            shown(self.figure, self.unit),
            *self._beside(self.peer, self.peer_figure),
            *self._beside(self.limit, self.limit_figure),
        )

    def _beside(self, name: str, figure: float) -> tuple[str, str]:
        if not name:
            return "-", "-"
        return f"{name} {shown(figure, self.unit)}", f"{self.figure / figure:.2f}" if figure else "-"


def table_line(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def shown(figure: float, unit: str) -> str:
    """A figure with its unit: `0.27 s`, `97.4 %`, `48,210 a second`."""
    digits = 2 if abs(figure) < 10 else 1 if abs(figure) < 100 else 0
    number = f"{figure:,.{digits}f}"
    return f"{number.rstrip('0').rstrip('.') if figure == int(figure) and digits else number} {unit}"
