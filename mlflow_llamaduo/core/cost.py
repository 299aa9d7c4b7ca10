"""What the local model costs against the service LLM: the model of the paper's Table 2.

    local(m)  = F + N*G + m*N*E          F fine-tuning, G one server, E its electricity a month, N servers
    api(m)    = m * 30 * (in_M * in_price + out_M * out_price)
    breakeven = (F + N*G) / (monthly_api - N*E), never if monthly_api <= N*E

The paper's printed 3,369 dollars for two light months misses a month of electricity; this gives 3,399.
"""

from dataclasses import dataclass

DAYS_A_MONTH = 30


@dataclass(frozen=True, slots=True)
class Workload:
    """Millions of tokens a day that the task reads and writes."""

    input_mtok_per_day: float
    output_mtok_per_day: float


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """Dollars per million tokens."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float


@dataclass(frozen=True, slots=True)
class LocalPrice:
    """Dollars: fine-tuning once, a server once, electricity per server and month."""

    finetuning_usd: float
    server_usd: float
    electricity_usd_per_month: float
    servers: int = 1

    @property
    def upfront_usd(self) -> float:
        """What is paid before the first request."""
        return self.finetuning_usd + self.servers * self.server_usd

    @property
    def monthly_usd(self) -> float:
        """What runs on every month."""
        return self.servers * self.electricity_usd_per_month


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
