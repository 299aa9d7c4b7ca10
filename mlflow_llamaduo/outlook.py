"""What a load costs either way, month by month: the question, and its answer as text, JSON values and a picture."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from mlflow_llamaduo.core.cost import (
    HEAVY,
    LIGHT,
    Band,
    Case,
    Speed,
    Uncertain,
    Workload,
    api_usd,
    breakeven_band,
    local_usd,
)
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.prices import price_book

NAMED = {"light": (LIGHT, 1), "heavy": (HEAVY, 8)}
"""The paper's loads, and the servers that it gives them where nobody says how fast one is."""
TRACES = "traces:"
KEYS = ("input_mtok_per_day", "output_mtok_per_day")


@dataclass(frozen=True, slots=True)
class Question:
    """`workload` is light, heavy, a YAML file, or traces:EXPERIMENT of the last `days` days; dollars and tokens."""

    workload: str
    days: int
    api: str
    server: str
    servers: int | None
    tokens_per_second: float | None
    peak: float
    finetuning_usd: float
    months: int
    off: Uncertain
    prices: Path | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """The answer: the case, its band, and in words where its figures come from."""

    question: Question
    case: Case
    band: Band
    load_from: str
    api_from: str
    server_from: str
    servers_from: str

    @property
    def row(self) -> dict[str, Any]:
        """All figures as JSON values; dollars, months, millions of tokens a day."""
        local = self.case.sized
        return {
            "workload": {**asdict(self.case.workload), "source": self.load_from},
            "api": {"model": self.question.api, **asdict(self.case.api), "source": self.api_from},
            "local": {"server": self.question.server, **asdict(local), "source": self.server_from},
            "servers_from": self.servers_from,
            "off": asdict(self.question.off),
            "breakeven_months": asdict(self.band),
            "months": [
                {
                    "month": month,
                    "api_usd": api_usd(month, self.case.workload, self.case.api),
                    "local_usd": local_usd(month, local),
                }
                for month in range(1, self.question.months + 1)
            ],
        }


def look_ahead(question: Question) -> Outlook:
    """Answer a question.

    Raises:
        ConfigError: a price or the number of servers is not known, or a file is wrong.
        DataError: the traces do not say what the load is.
    """
    book = price_book(question.prices)
    workload, load_from = _workload(question)
    api, api_from = book.api_price(question.api)
    entry = book.server(question.server)
    rate = question.tokens_per_second or entry.output_tokens_per_second
    speed = Speed(rate, question.peak) if rate and not question.servers else None
    servers, servers_from = _servers(question, speed)
    local = book.local_price(entry, finetuning_usd=question.finetuning_usd, servers=servers)
    case = Case(workload, api, local, speed)
    return Outlook(
        question,
        case,
        breakeven_band(case, question.off),
        load_from,
        api_from,
        f"{entry.date}, {entry.source}",
        servers_from,
    )


def told(outlook: Outlook) -> Iterator[str]:
    """The answer in lines."""
    case, local, question = outlook.case, outlook.case.sized, outlook.question
    load, api = case.workload, case.api
    prices = f"{api.input_usd_per_mtok:g} / {api.output_usd_per_mtok:g} dollars per M tokens"
    monthly = local.electricity_usd_per_month + local.rent_usd_per_month
    yield f"load         {load.input_mtok_per_day:g} M tokens in, {load.output_mtok_per_day:g} M out a day [1]"
    yield f"service LLM  {question.api}, {prices}: {api_usd(1, load, api):,.2f} a month [2]"
    each = f"{local.server_usd:,.2f} dollars each, {monthly:,.2f} a month"
    yield f"servers      {local.servers} x {question.server}: {each} [3]"
    yield f"             {outlook.servers_from}"
    yield f"fine-tuning  {local.finetuning_usd:,.2f} dollars, once"
    yield ""
    yield f"{'month':>5}  {'service LLM':>14}  {'local':>14}  {'saved':>14}"
    for month in _shown(question.months):
        paid, own = api_usd(month, load, api), local_usd(month, local)
        yield f"{month:>5}  {paid:>14,.2f}  {own:>14,.2f}  {paid - own:>14,.2f}"
    yield ""
    yield f"break-even   {_when(outlook.band.assumed)}"
    yield f"             {_between(outlook.band)}, with {_doubt(question.off, case)} off"
    yield ""
    for place, source in enumerate((outlook.load_from, outlook.api_from, outlook.server_from), 1):
        yield f"[{place}] {source}"


def picture(outlook: Outlook, file: Path) -> None:
    """Both costs by month, with what they may be where prices, load and speed are off (Figure 4), as a PNG file.

    Raises:
        ConfigError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    months = range(outlook.question.months + 1)
    case, band = outlook.case, outlook.band
    axes.plot(months, [api_usd(m, case.workload, case.api) for m in months], label=outlook.question.api)
    name = f"{case.sized.servers} x {outlook.question.server}"
    axes.plot(months, [local_usd(m, case.sized) for m in months], label=name)
    if band.best is not None:
        worst = months[-1] if band.worst is None else min(band.worst, months[-1])
        axes.axvspan(min(band.best, worst), worst, alpha=0.15, label="break-even")
    if band.assumed is not None:
        axes.axvline(band.assumed, linestyle=":", linewidth=1)
    axes.set(
        xlabel="months",
        ylabel="dollars",
        xlim=(0, months[-1]),
        ylim=(0, None),
        title=f"break-even {_when(band.assumed)}",
    )
    axes.legend()
    try:
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error


def _workload(question: Question) -> tuple[Workload, str]:
    said = question.workload
    if said in NAMED:
        return NAMED[said][0], "the paper's, Table 2"
    if said.startswith(TRACES):
        from mlflow_llamaduo.tracking.usage import used

        workload, traces = used(said.removeprefix(TRACES), question.days)
        return workload, f"{traces} traces of the last {question.days} days"
    file = Path(said)
    try:
        tree = yaml.safe_load(file.read_text())
        tokens = [float(tree[key]) for key in KEYS]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"--workload {said}: light, heavy, traces:EXPERIMENT or a YAML file ({why})") from error
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"{file}: {' and '.join(KEYS)} are wanted, millions of tokens") from error
    if not all(0 <= count < float("inf") for count in tokens):
        raise ConfigError(f"{file}: {' and '.join(KEYS)} are numbers of at least 0")
    return Workload(*tokens), str(file)


def _servers(question: Question, speed: Speed | None) -> tuple[int, str]:
    if question.servers:
        return question.servers, "as many as --servers says"
    if speed is not None:
        rate = f"as many as the load takes, at {speed.output_tokens_per_second:g} tokens a second each"
        return 1, rate + (f" and {speed.peak:g} times the mean load in the busiest hour" if speed.peak > 1 else "")
    if question.workload in NAMED:
        return NAMED[question.workload][1], "the paper's number; --tokens-per-second says yours"
    raise ConfigError(
        f"nobody says how fast {question.server} is: give --tokens-per-second (of answers, measured at your prompts) "
        "or --servers"
    )


def _shown(months: int) -> list[int]:
    """The first three, and then every third."""
    return sorted({*range(1, min(3, months) + 1), *range(3, months + 1, 3), months})


def _when(months: float | None) -> str:
    return "never" if months is None else f"after {months:.1f} months"


def _between(band: Band) -> str:
    if band.best is None:
        return "never at the best too"
    worst = "never" if band.worst is None else f"{band.worst:.1f} months"
    return f"between {band.best:.1f} months and {worst}"


def _doubt(off: Uncertain, case: Case) -> str:
    parts = {"prices": off.prices, "load": off.load, **({"speed": off.speed} if case.speed else {})}
    return ", ".join(f"{name} {100 * share:g} %" for name, share in parts.items())
