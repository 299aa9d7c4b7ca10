"""The report as one HTML file: no script, no request to anywhere, every text escaped.

Model output is hostile HTML. Jinja escapes whatever is filled in, texts are cut, and a Content-Security-Policy
forbids scripts, pictures from elsewhere and requests, should something get through all the same.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mlflow_llamaduo.core.text import storable
from mlflow_llamaduo.report.content import (
    dollars,
    facts,
    lineage,
    rejections,
    score_rows,
    sides,
    stage_rows,
    where_rows,
    why,
)
from mlflow_llamaduo.report.drawing import COLOURS, Drawing
from mlflow_llamaduo.report.figures import when
from mlflow_llamaduo.report.findings import LOOKED_FOR, findings
from mlflow_llamaduo.report.read import Told

MOST_CHARACTERS = 1200
"""Of a text that is shown; what is cut is told."""
MOST_BYTES = 2_000_000

OUTCOMES = {
    "passed": "The gate was passed",
    "rounds": "Not passed: the round limit was reached",
    "plateau": "Not passed: scores rose no more",
    "budget": "Stopped: the budget was used up",
    None: "Not finished",
}


def page(told: Told, drawings: Mapping[str, Drawing]) -> str:
    """The whole report.

    Args:
        told: the alignment.
        drawings: its figures by name.
    """
    account = told.account
    text: str = (
        _environment()
        .get_template("report.html")
        .render(
            told=told,
            account=account,
            title=f"{account['task']}: alignment report",
            outcome=OUTCOMES.get(account["outcome"], account["outcome"]),
            why=why(told),
            facts=list(facts(told)),
            scores=list(score_rows(account)),
            thresholds=account["thresholds"],
            rejections=rejections(told),
            sides=sides(told),
            stages=list(stage_rows(account)),
            wheres=list(where_rows(account)),
            spent=sum(row["usd"] for row in account["ledger"]),
            pays=when(account["costs"]["breakeven_months"]),
            findings=findings(told),
            looked_for=LOOKED_FOR,
            lineage=list(lineage(told)),
            config=_config(told),
            figures=drawings,
        )
    )
    return text


def figure_page(drawing: Drawing) -> str:
    """One figure alone, as MLflow shows it: words at each mark, and series that can be hidden."""
    text: str = _environment().get_template("figure.html").render(title=drawing.title, figure=drawing)
    return text


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mlflow_llamaduo.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (files("mlflow_llamaduo.report") / "report.css").read_text(encoding="utf-8")
    light = "".join(f"--{name}: {colour}; " for name, colour in COLOURS.items())
    environment.globals["style"] = Markup(f":root {{ {light}}}\n{style}")  # noqa: S704 - our own file and constants
    environment.filters |= {"cut": cut, "usd": dollars, "count": _count, "duration": _duration, "svg": _svg}
    return environment


def _plain(value: Any) -> Any:
    """What is filled in: a text without what no page can hold. What we made ourselves is left alone."""
    return storable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def cut(text: Any, most: int = MOST_CHARACTERS) -> str:
    """A text as it is shown: not more than `most` characters, and what was cut is told."""
    shown = str(text)
    if len(shown) <= most:
        return shown
    return f"{shown[:most]} … ({len(shown) - most:,} more characters)"


def _svg(drawing: Drawing) -> Markup:
    return Markup(drawing.svg())  # noqa: S704 - matplotlib has escaped it, and `drawing` what it has added


def _config(told: Told) -> str:
    text: str = yaml.safe_dump(dict(told.config), sort_keys=False, allow_unicode=True, width=100)
    return text


def _count(number: float | None) -> str:
    return f"{number:,.0f}" if number else "-"


def _duration(seconds: float | None) -> str:
    if not seconds:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
