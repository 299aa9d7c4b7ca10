"""Table 2 of the paper; its printed 3,369 for two light months misses one month of electricity."""

import pytest

from mlflow_llamaduo.config import Costs
from mlflow_llamaduo.core.cost import ApiPrice, LocalPrice, Workload, api_usd, breakeven_months, local_usd

GPT_4O = ApiPrice(5, 15)
LIGHT, HEAVY = Workload(10, 1), Workload(50, 5)
ONE_SERVER = LocalPrice(finetuning_usd=800, server_usd=2539, electricity_usd_per_month=30)
EIGHT_SERVERS = LocalPrice(finetuning_usd=800, server_usd=2539, electricity_usd_per_month=30, servers=8)


@pytest.mark.parametrize(
    ("workload", "months", "usd"),
    [
        (LIGHT, 1, 1950),
        (LIGHT, 2, 3900),
        (LIGHT, 12, 23_400),
        (HEAVY, 1, 9750),
        (HEAVY, 2, 19_500),
        (HEAVY, 12, 117_000),
    ],
)
def test_the_api_costs_what_table_2_says(workload: Workload, months: float, usd: float) -> None:
    assert api_usd(months, workload, GPT_4O) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("price", "months", "usd"),
    [(ONE_SERVER, 2, 3399), (ONE_SERVER, 12, 3699), (EIGHT_SERVERS, 2, 21_592), (EIGHT_SERVERS, 12, 23_992)],
)
def test_the_local_model_costs_what_table_2_says_every_month_of_electricity_included(
    price: LocalPrice, months: float, usd: float
) -> None:
    assert local_usd(months, price) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("workload", "price", "months"),
    [(LIGHT, ONE_SERVER, 1.739), (HEAVY, EIGHT_SERVERS, 2.220), (LIGHT, EIGHT_SERVERS, 12.346)],
)
def test_break_even_comes_when_table_2_says(workload: Workload, price: LocalPrice, months: float) -> None:
    found = breakeven_months(workload, GPT_4O, price)

    assert found is not None
    assert found == pytest.approx(months, abs=5e-4)
    assert api_usd(found, workload, GPT_4O) == pytest.approx(local_usd(found, price))


@pytest.mark.parametrize(
    ("workload", "price", "usd", "percent"),
    [(LIGHT, ONE_SERVER, 19_701, 84.19), (HEAVY, EIGHT_SERVERS, 93_008, 79.49)],
)
def test_twelve_months_save_what_table_2_says(
    workload: Workload, price: LocalPrice, usd: float, percent: float
) -> None:
    api = api_usd(12, workload, GPT_4O)
    saved = api - local_usd(12, price)

    assert saved == pytest.approx(usd)
    assert 100 * saved / api == pytest.approx(percent, abs=5e-3)


@pytest.mark.parametrize("input_mtok", [0.0, 0.2])
def test_break_even_never_comes_when_the_electricity_costs_as_much_as_the_api(input_mtok: float) -> None:
    idle = Workload(input_mtok, 0)  # 0.2 M a day are 30 dollars a month, which is the electricity

    assert breakeven_months(idle, GPT_4O, ONE_SERVER) is None


def test_the_configuration_s_defaults_are_the_light_column_of_table_2() -> None:
    costs = Costs()

    assert Workload(costs.input_mtok_per_day, costs.output_mtok_per_day) == LIGHT
    assert ApiPrice(costs.api_input_usd_per_mtok, costs.api_output_usd_per_mtok) == GPT_4O
    assert LocalPrice(800, costs.server_usd, costs.electricity_usd_per_month, costs.servers) == ONE_SERVER
