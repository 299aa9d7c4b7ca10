"""A matplotlib figure as PNG, and as SVG that follows the page: its colours, its width, its check boxes.

Colours are drawn as they are in daylight and become CSS variables in the SVG, so that one drawing serves both themes.
A mark may carry words (a tooltip) and belong to a series, which the page can hide; both need no script.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlflow_llamaduo.core.text import storable
from mlflow_llamaduo.errors import ConfigError

COLOURS = {
    "ink": "#1f2328",
    "soft": "#d1d9e0",
    "c1": "#0969da",
    "c2": "#bc4c00",
    "c3": "#1a7f37",
    "c4": "#8250df",
    "c5": "#6e7781",
    "c6": "#bf3989",
}
"""By the names of the page's CSS variables."""
INK, SOFT = COLOURS["ink"], COLOURS["soft"]
CYCLE = tuple(COLOURS[f"c{number}"] for number in range(1, 7))
WIDTH_IN = 5.2
PNG: dict[str, Any] = {"dpi": 160, "facecolor": "white"}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it is found, read aloud, and needs no fonts in the file
    "svg.hashsalt": "llamaduo",
    "text.parse_math": False,  # a dollar sign in a model's name is a dollar sign
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": SOFT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass
class Drawing:
    """One figure. `said` is what it shows, in words, for whoever does not see it."""

    name: str
    title: str
    figure: Figure
    said: str = ""
    series: dict[str, str] = field(default_factory=dict)
    """Names by key, of what can be hidden."""
    _tips: list[str] = field(default_factory=list)

    def key(self, label: str) -> str:
        """The key of a series; one that is new is added."""
        for key, known in self.series.items():
            if known == label:
                return key
        key = f"s{len(self.series)}"
        self.series[key] = label
        return key

    def mark(self, artist: Any, label: str = "", tip: str = "") -> None:
        """Make an artist part of a series, and give it words."""
        self._tips.append(storable(tip))
        artist.set_gid(f"mark-{self.key(label) if label else 'none'}-{len(self._tips) - 1}")

    def png(self) -> bytes:
        """As a picture on white."""
        file = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(file, format="png", **PNG)
        return file.getvalue()

    def write_png(self, path: Path) -> None:
        """The picture as a file.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            path.write_bytes(self.png())
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error

    def svg(self) -> str:
        """As SVG within a page: no size, no metadata, ids of its own, colours from the page's variables."""
        file = io.StringIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.S)
        text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = text.replace("<svg", f'<svg role="img" aria-label="{escape(storable(self.said or self.title))}"', 1)
        text = re.sub(r'<g id="mark-(\w+)-(\d+)">', self._marked, text)
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'(url\(|href=")#', rf"\1#{self.name}-", text)
        for name, colour in COLOURS.items():
            text = text.replace(colour, f"var(--{name})")
        return text

    def _marked(self, found: "re.Match[str]") -> str:
        tip = self._tips[int(found[2])]
        return f'<g class="mark {found[1]}">' + (f"<title>{escape(tip)}</title>" if tip else "")


@contextmanager
def drawn(name: str, title: str, height_in: float) -> Iterator[Drawing]:
    """An empty figure in our style, to be filled within the block."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        yield Drawing(name, title, figure)
        figure.draw_without_rendering()
