"""The figures of a report: scores by round (the paper's Figure 2), densities (3), costs (4), and rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter
from scipy.stats import gaussian_kde

from mlflow_llamaduo.core.rules import BASELINES, SCORES
from mlflow_llamaduo.core.text import storable
from mlflow_llamaduo.report.drawing import CYCLE, INK, SOFT, Drawing, drawn
from mlflow_llamaduo.report.read import Model

Row = Mapping[str, Any]

CALLED = {"base": "base", "few_shot": "few-shot", "service_llm": "service LLM", "champion": "champion"}
COLOUR = dict(zip(BASELINES, (CYCLE[4], CYCLE[3], CYCLE[1], CYCLE[2]), strict=True))
OWN = CYCLE[0]
POINTS = np.linspace(0.0, 100.0, 201)
LONGEST = 28
"""Characters of a name in a figure."""
NARROWEST = 1.5
"""Points: the least width of a density, so that answers that all have one score are a peak and not a line."""


def scores_figure(account: Row) -> Drawing:
    """Mean precision and similarity of every round with 95 % intervals, beside the baselines' (Figure 2)."""
    with drawn("scores", "Scores by round", 4.6) as drawing:
        panels = drawing.figure.subplots(2, 1, sharex=True)
        for panel, score in zip(panels, SCORES, strict=True):
            for name, card in account["baselines"].items():
                _band(drawing, panel, name, card["figures"][f"{score}_mean"])
            _rounds(drawing, panel, account["rounds"], score)
            panel.set(title=f"mean {score}, 0 to 100", ylim=(0, 102))
        panels[-1].set(xlabel="round")
        last = max([r["number"] for r in account["rounds"]], default=0)
        panels[-1].set_xlim(-0.5, last + 0.5)
        panels[-1].set_xticks(range(0, last + 1, 1 + last // 12) if account["rounds"] else [])
        _legend(drawing, panels[0])
        drawing.caption = "Means over the test prompts with their 95 % intervals; each mark says its figures."
        drawing.said = "Mean scores by round with 95 % intervals: " + "; ".join(_said(account))
    return drawing


def density_figure(models: Mapping[str, Model], shown: str) -> Drawing:
    """How the scores of single answers are spread, by judge: the shown round's, and the baselines' (Figure 3)."""
    judges = list(models[shown].scores)
    with drawn("densities", "How scores are spread", 1.2 + 1.8 * len(judges)) as drawing:
        rows = drawing.figure.subplots(len(judges), 2, sharex=True, squeeze=False)
        for row, judge in zip(rows, judges, strict=True):
            for panel, score in zip(row, SCORES, strict=True):
                for name in _order(models, shown):
                    values = [getattr(scored, score) for scored in models[name].scores.get(judge, ())]
                    _density(drawing, panel, name, values, shown)
                panel.set(xlim=(0, 100), ylim=(0, None), yticks=[])
                panel.set_title(f"{score}, by {_label(judge)}", fontsize=8)
        for panel in rows[-1]:
            panel.set_xlabel("score of one answer")
        _legend(drawing, rows[0][0])
        drawing.said = (
            f"Densities of precision and similarity by judge, of {', '.join(map(called, _order(models, shown)))}"
        )
        drawing.caption = (
            "Each answer counts once, with the mean of its judgings. Judges' scales differ: compare within one."
        )
    return drawing


def funnel_figure(account: Row, rejected: Mapping[int, Mapping[str, int]]) -> Drawing:
    """What became of the rows: those of the source, and those that each round asked the service LLM for."""
    data = account["data"]
    lines: list[tuple[str, dict[str, int]]] = [("source", {"kept": data["kept"], **data["rejected"]})]
    lines += [("split", {side: count for side, count in data["parts"].items() if count})]
    for one in account["rounds"]:
        if one["kept"] or one["rejected"]:
            lines.append((f"round {one['number']}", {"kept": one["kept"], **rejected.get(one["number"], {})}))
    kinds = list(dict.fromkeys(kind for _, counts in lines for kind in counts))
    colours = {kind: _kind_colour(kind, place) for place, kind in enumerate(kinds)}
    with drawn("funnel", "What became of the rows", 1.4 + 0.45 * len(lines)) as drawing:
        panel = drawing.figure.subplots()
        for place, (name, counts) in enumerate(lines):
            left, all_ = 0.0, max(1, sum(counts.values()))
            for kind, count in counts.items():
                share = 100 * count / all_
                bars = panel.barh(place, share, left=left, color=colours[kind], height=0.6, edgecolor="none")
                drawing.mark(bars[0], _label(kind), f"{name}: {count} {_label(kind)}")
                if share > 9:
                    panel.text(
                        left + share / 2, place, str(count), ha="center", va="center", fontsize=8, color="white"
                    )
                left += share
        panel.set_yticks(range(len(lines)), [f"{name} ({sum(counts.values())})" for name, counts in lines])
        panel.set(xlim=(0, 100), xlabel="share of rows, %")
        panel.invert_yaxis()
        panel.grid(visible=False)
        named = [panel.barh(0, 0, color=colours[kind], label=_label(kind)) for kind in kinds]
        drawing.figure.legend(handles=named, loc="outside upper left", ncols=4, fontsize=8)
        drawing.said = "; ".join(
            f"{name}: " + ", ".join(f"{count} {_label(kind)}" for kind, count in counts.items())
            for name, counts in lines
        )
    return drawing


def cost_figure(outlook: Row) -> Drawing:
    """Dollars by month, service LLM and local, with the band of break-even (Figure 4); `outlook` as `Outlook.row`."""
    months = [0, *(row["month"] for row in outlook["months"])]
    upfront = outlook["local"]["finetuning_usd"] + outlook["local"]["servers"] * outlook["local"]["server_usd"]
    lines = {
        outlook["api"]["model"]: [0.0, *(row["api_usd"] for row in outlook["months"])],
        f"{outlook['local']['servers']} x {outlook['local']['server']}": [
            upfront,
            *(row["local_usd"] for row in outlook["months"]),
        ],
    }
    band = outlook["breakeven_months"]
    with drawn("cost", "When it pays", 3.1) as drawing:
        panel = drawing.figure.subplots()
        for (name, values), colour in zip(lines.items(), (CYCLE[1], OWN), strict=True):
            (line,) = panel.plot(months, values, color=colour, label=_label(name))
            drawing.mark(line, _label(name), f"{_label(name)}: {values[-1]:,.0f} dollars in {months[-1]} months")
        if band["best"] is not None:
            worst = months[-1] if band["worst"] is None else min(band["worst"], months[-1])
            span = panel.axvspan(min(band["best"], worst), worst, color=SOFT, alpha=0.6, zorder=0, label="break-even")
            drawing.mark(span, "break-even", when(band))
        if band["assumed"] is not None and band["assumed"] <= months[-1]:
            panel.axvline(band["assumed"], linestyle=":", linewidth=1, color=INK)
        panel.set(xlabel="months", ylabel="dollars", xlim=(0, months[-1]), ylim=(0, None))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _legend(drawing, panel)
        drawing.said = drawing.caption = f"{when(band).capitalize()}."
    return drawing


def when(band: Row) -> str:
    """Break-even in words."""
    assumed = "never pays" if band["assumed"] is None else f"pays after {band['assumed']:.1f} months"
    if band["best"] is None:
        return f"{assumed}, at the best too"
    worst = "never" if band["worst"] is None else f"{band['worst']:.1f} months"
    return f"{assumed}; between {band['best']:.1f} months and {worst} where prices, load and speed are off"


def called(name: str) -> str:
    """A baseline as people call it."""
    return CALLED.get(name, name)


def _band(drawing: Drawing, panel: Any, name: str, mean: Row) -> None:
    if mean["value"] is None:
        return
    tip = f"{called(name)}: {interval(mean)}"
    line = panel.axhline(mean["value"], color=COLOUR[name], linewidth=1.2, label=called(name))
    drawing.mark(line, called(name), tip)
    if mean["low"] is not None and mean["high"] is not None:
        span = panel.axhspan(mean["low"], mean["high"], color=COLOUR[name], alpha=0.10, linewidth=0)
        drawing.mark(span, called(name), tip)


def _rounds(drawing: Drawing, panel: Any, rounds: Sequence[Row], score: str) -> None:
    known = [(r, r["scorecard"]["figures"][f"{score}_mean"]) for r in rounds]
    known = [(r, mean) for r, mean in known if mean["value"] is not None]
    if not known:
        return
    (line,) = panel.plot([r["number"] for r, _ in known], [m["value"] for _, m in known], color=OWN, linewidth=1)
    drawing.mark(line, "rounds")
    for place, (one, mean) in enumerate(known):
        label = "rounds" if place == 0 else None
        at = one["number"]
        (dot,) = panel.plot([at], [mean["value"]], "o", color=OWN, markersize=5, label=label)
        drawing.mark(dot, "rounds", f"round {at}: {interval(mean)}")
        if mean["low"] is not None and mean["high"] is not None:
            bar = panel.vlines(at, mean["low"], mean["high"], color=OWN, linewidth=1.6)
            drawing.mark(bar, "rounds", f"round {at}: {interval(mean)}")


def _density(drawing: Drawing, panel: Any, name: str, values: Sequence[float], shown: str) -> None:
    if not values:
        return
    at = np.asarray(values, dtype=float)
    width = max(NARROWEST, 1.06 * float(at.std()) * len(at) ** -0.2)
    # Mirrored at both ends: a score cannot be below 0 or above 100, and much of the mass often is at an end.
    around = np.concatenate([at, -at, 200.0 - at])
    spread = float(around.std(ddof=1)) or 1.0
    curve = 3 * gaussian_kde(around, bw_method=width / spread)(POINTS)
    colour = OWN if name == shown else COLOUR[name]
    (line,) = panel.plot(POINTS, curve, color=colour, linewidth=1.8 if name == shown else 1.1, label=called(name))
    drawing.mark(line, called(name), f"{called(name)}: {len(at)} answers, mean {at.mean():.1f}")
    if name == shown:
        drawing.mark(panel.fill_between(POINTS, curve, color=colour, alpha=0.12, linewidth=0), called(name))


def interval(mean: Row) -> str:
    """`71.3 (64.0 to 78.1)`."""
    if mean["value"] is None:
        return "-"
    if mean["low"] is None or mean["high"] is None:
        return f"{mean['value']:.1f}"
    return f"{mean['value']:.1f} ({mean['low']:.1f} to {mean['high']:.1f})"


def _said(account: Row) -> list[str]:
    cards = {called(name): card for name, card in account["baselines"].items()}
    cards |= {f"round {r['number']}": r["scorecard"] for r in account["rounds"]}
    return [
        f"{name} " + ", ".join(f"{score} {interval(card['figures'][f'{score}_mean'])}" for score in SCORES)
        for name, card in cards.items()
    ]


def _order(models: Mapping[str, Model], shown: str) -> list[str]:
    return [*(name for name in BASELINES if name in models), shown]


def _kind_colour(kind: str, place: int) -> str:
    known = {"kept": CYCLE[2], "train": CYCLE[0], "dev": CYCLE[3], "test": CYCLE[4], "left_out": CYCLE[1]}
    return known.get(kind, (CYCLE[1], CYCLE[5], CYCLE[3], CYCLE[4])[place % 4])


def _legend(drawing: Drawing, panel: Any) -> None:
    """Above all panels, where it hides nothing."""
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        drawing.figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=8)


def _label(name: str) -> str:
    """A name as it fits into a figure; anybody may have chosen it."""
    text = " ".join(storable(str(name)).replace("_", " ").split()) or "?"
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
