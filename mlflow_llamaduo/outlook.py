"""What a load costs either way, month by month: the question, and its answer as text and as JSON values."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlflow_llamaduo.config import Costs
from mlflow_llamaduo.core.cost import (
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


@dataclass(frozen=True, slots=True)
class Load:
    """A day's tokens, where they are from, and the servers that are taken where nobody says how fast one is."""

    workload: Workload
    source: str
    servers: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A load, names of the price book, and how far off prices, load and speed may be; dollars, tokens, months."""

    load: Load
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
    api_from: str
    server_from: str
    servers_from: str

    @property
    def row(self) -> dict[str, Any]:
        """All figures as JSON values; dollars, months, millions of tokens a day."""
        local = self.case.sized
        return {
            "workload": {**asdict(self.case.workload), "source": self.question.load.source},
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
        ConfigError: a price or the number of servers is not known, or the file of prices is wrong.
    """
    book = price_book(question.prices)
    api, api_from = book.api_price(question.api)
    entry = book.server(question.server)
    rate = question.tokens_per_second or entry.output_tokens_per_second
    speed = Speed(rate, question.peak) if rate and not question.servers else None
    servers, servers_from = _servers(question, speed)
    local = book.local_price(entry, finetuning_usd=question.finetuning_usd, servers=servers)
    case = Case(question.load.workload, api, local, speed)
    return Outlook(
        question,
        case,
        breakeven_band(case, question.off),
        api_from,
        f"{entry.date}, {entry.source}",
        servers_from,
    )


def outlook_of(costs: Costs, finetuning_usd: float, months: int = 24) -> Outlook:
    """The answer to what a configuration asks, once the fine-tuning has cost so many dollars.

    Raises:
        ConfigError: a name is not in the price book, or the file of `costs.prices` is none.
    """
    load = Load(Workload(costs.input_mtok_per_day, costs.output_mtok_per_day), "costs of the configuration")
    question = Question(
        load,
        costs.api,
        costs.server,
        None if costs.tokens_per_second else costs.servers,
        costs.tokens_per_second,
        costs.peak,
        finetuning_usd,
        months,
        Uncertain(),
        Path(costs.prices) if costs.prices else None,
    )
    try:
        return look_ahead(question)
    except ConfigError as error:
        raise ConfigError(f"costs: {error}") from error


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
    for place, source in enumerate((question.load.source, outlook.api_from, outlook.server_from), 1):
        yield f"[{place}] {source}"


def _servers(question: Question, speed: Speed | None) -> tuple[int, str]:
    if question.servers:
        return question.servers, "as many as was said"
    if speed is not None:
        rate = f"as many as the load takes, at {speed.output_tokens_per_second:g} tokens a second each"
        return 1, rate + (f" and {speed.peak:g} times the mean load in the busiest hour" if speed.peak > 1 else "")
    if question.load.servers:
        return question.load.servers, "the paper's number; --tokens-per-second says yours"
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
