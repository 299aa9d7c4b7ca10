"""What the local model costs against the service LLM: the model of the paper's Table 2 and Figure 4.

    local(m)  = F + N*G + m*N*E          F fine-tuning, G one server, E what it takes a month, N servers
    api(m)    = m * 30 * (in_M * in_price + out_M * out_price)
    breakeven = (F + N*G) / (monthly_api - N*E), never if monthly_api <= N*E

The paper's printed 3,369 dollars for two light months misses a month of electricity; this gives 3,399. Its servers
are constants, 1 for a light load and 8 for five times as much, which no one speed explains: here they follow from the
tokens that a server writes a second. None of the inputs is known well, so that break-even has a band.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

DAYS_A_MONTH = 30
HOURS_A_MONTH = 720
"""The paper's: 229 W for 720 hours are 164.88 kWh, or 30 dollars."""
SECONDS_A_DAY = 86_400
STEPS = 5
"""Values of each uncertain input that are tried: servers come whole, so a band's ends need not be at its corners."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Millions of tokens a day that the task reads and writes."""

    input_mtok_per_day: float
    output_mtok_per_day: float

    def times(self, factor: float) -> "Workload":
        """So many times as much of it."""
        return Workload(factor * self.input_mtok_per_day, factor * self.output_mtok_per_day)


LIGHT, HEAVY = Workload(10, 1), Workload(50, 5)
"""The paper's, Table 2."""


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """Dollars per million tokens."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float

    def times(self, factor: float) -> "ApiPrice":
        """So many times as dear."""
        return ApiPrice(factor * self.input_usd_per_mtok, factor * self.output_usd_per_mtok)


@dataclass(frozen=True, slots=True)
class LocalPrice:
    """Dollars: fine-tuning once, a server once, and per server and month its electricity and its rent."""

    finetuning_usd: float
    server_usd: float
    electricity_usd_per_month: float
    servers: int = 1
    rent_usd_per_month: float = 0.0

    @property
    def upfront_usd(self) -> float:
        """What is paid before the first request."""
        return self.finetuning_usd + self.servers * self.server_usd

    @property
    def monthly_usd(self) -> float:
        """What runs on every month."""
        return self.servers * (self.electricity_usd_per_month + self.rent_usd_per_month)

    def times(self, factor: float) -> "LocalPrice":
        """So many times as dear, but for the fine-tuning, whose price is known once it is done."""
        return replace(
            self,
            server_usd=factor * self.server_usd,
            electricity_usd_per_month=factor * self.electricity_usd_per_month,
            rent_usd_per_month=factor * self.rent_usd_per_month,
        )


@dataclass(frozen=True, slots=True)
class Speed:
    """What one server writes: tokens of answers a second at this task's prompts, with as many requests as it takes.

    `peak` is the busiest hour's load over the day's mean: servers are bought for that hour.
    """

    output_tokens_per_second: float
    peak: float = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """A workload, either way. Without a speed the servers of `local` are taken as they are (the paper's way)."""

    workload: Workload
    api: ApiPrice
    local: LocalPrice
    speed: Speed | None = None

    @property
    def sized(self) -> LocalPrice:
        """The local price with the servers that the workload needs."""
        if self.speed is None:
            return self.local
        return replace(self.local, servers=servers_needed(self.workload, self.speed))

    @property
    def breakeven_months(self) -> float | None:
        """Months after which the local model is the cheaper one; None if that never comes."""
        return breakeven_months(self.workload, self.api, self.sized)


@dataclass(frozen=True, slots=True)
class Uncertain:
    """How far off prices, load and speed may be, as shares of what is assumed (0.2 is 20 % more or less)."""

    prices: float = 0.2
    load: float = 0.3
    speed: float = 0.3


@dataclass(frozen=True, slots=True)
class Band:
    """Months to break-even: at the best, as assumed, at the worst; None is never."""

    best: float | None
    assumed: float | None
    worst: float | None


def api_usd(months: float, workload: Workload, price: ApiPrice) -> float:
    """Dollars for `months` of the workload on the service LLM."""
    daily_input = workload.input_mtok_per_day * price.input_usd_per_mtok
    daily_output = workload.output_mtok_per_day * price.output_usd_per_mtok
    return months * DAYS_A_MONTH * (daily_input + daily_output)


def local_usd(months: float, price: LocalPrice) -> float:
    """Dollars for `months` of running the local model, all included."""
    return price.upfront_usd + months * price.monthly_usd


def breakeven_months(workload: Workload, api: ApiPrice, local: LocalPrice) -> float | None:
    """Months after which the local model is the cheaper one; None if that never comes."""
    saved_a_month = api_usd(1, workload, api) - local.monthly_usd
    return local.upfront_usd / saved_a_month if saved_a_month > 0 else None


def electricity_usd_per_month(watts: float, usd_per_kwh: float) -> float:
    """Dollars a month of a server that is always on."""
    return watts / 1000 * HOURS_A_MONTH * usd_per_kwh


def servers_needed(workload: Workload, speed: Speed) -> int:
    """Servers for the busiest hour of a workload; at least one."""
    per_second = 1e6 * workload.output_mtok_per_day / SECONDS_A_DAY
    return max(1, ceil(round(per_second * speed.peak / speed.output_tokens_per_second, 9)))


def breakeven_band(case: Case, off: Uncertain) -> Band:
    """Break-even with every input as far off as it may be, in all their combinations."""
    found = [one.breakeven_months for one in _neighbours(case, off)]
    comes = [months for months in found if months is not None]
    worst = None if len(comes) < len(found) else max(comes)
    return Band(min(comes, default=None), case.breakeven_months, worst)


def _neighbours(case: Case, off: Uncertain) -> Iterator[Case]:
    speed_off = off.speed if case.speed else 0.0
    around = product(_around(off.prices), _around(off.prices), _around(off.load), _around(speed_off))
    for api, local, load, speed in around:
        faster = case.speed and replace(
            case.speed, output_tokens_per_second=speed * case.speed.output_tokens_per_second
        )
        yield Case(case.workload.times(load), case.api.times(api), case.local.times(local), faster)


def _around(share: float) -> Iterable[float]:
    if not share:
        return (1.0,)
    return (1 - share + 2 * share * step / (STEPS - 1) for step in range(STEPS))
