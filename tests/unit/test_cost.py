"""Table 2 of the paper; its printed 3,369 for two light months misses one month of electricity."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_llamaduo.config import Costs, Project
from mlflow_llamaduo.core.cost import (
    HEAVY,
    LIGHT,
    ApiPrice,
    Band,
    Case,
    LocalPrice,
    Speed,
    Uncertain,
    Workload,
    api_usd,
    breakeven_band,
    breakeven_months,
    electricity_usd_per_month,
    local_usd,
    servers_needed,
)
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.outlook import outlook_of
from mlflow_llamaduo.preflight import check_costs

GPT_4O = ApiPrice(5, 15)
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
    case = outlook_of(Costs(), 800).case

    assert (case.workload, case.api, case.speed) == (LIGHT, GPT_4O, None)
    assert case.local.electricity_usd_per_month == pytest.approx(30)
    assert replace(case.local, electricity_usd_per_month=30) == ONE_SERVER


def test_a_configured_speed_gives_the_servers_and_a_file_the_prices(tmp_path: Path) -> None:
    book = tmp_path / "prices.yaml"
    book.write_text("servers: {shelf: {usd: 1000, watts: 0, date: 2026-11, source: ours}}")
    costs = Costs(output_mtok_per_day=8.64, server="shelf", servers=9, tokens_per_second=30, peak=2, prices=str(book))

    assert outlook_of(costs, 0).case.sized == LocalPrice(0, 1000, 0, servers=7)


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        (Costs(server="g5.large"), r"costs: no server 'g5.large' in the price book; did you mean 'g5.xlarge'\?"),
        (Costs(api="gpt-5o"), r"costs: unknown service LLM 'gpt-5o'"),
        (Costs(prices="none.yaml"), r"costs: none\.yaml cannot be read"),
    ],
)
def test_what_has_no_price_is_said_before_a_run(costs: Costs, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_costs(Project(task="qa", folder=Path(), profile="local", base_model="none", costs=costs))


def test_two_hundred_and_twenty_nine_watts_are_the_paper_s_thirty_dollars() -> None:
    assert electricity_usd_per_month(229, 30 / 164.88) == pytest.approx(30)


@pytest.mark.parametrize(
    ("workload", "tokens_per_second", "peak", "servers"),
    [
        (LIGHT, 1_000_000 / 86_400, 1.0, 1),  # just enough
        (LIGHT, 1_000_000 / 86_401, 1.0, 2),
        (HEAVY, 1_000_000 / 86_400, 1.0, 5),
        (HEAVY, 1_000_000 / 86_400, 3.0, 15),
        (Workload(5, 0), 10.0, 3.0, 1),
        (LIGHT, 500.0, 1.0, 1),
    ],
)
def test_servers_follow_from_what_one_of_them_writes(
    workload: Workload, tokens_per_second: float, peak: float, servers: int
) -> None:
    assert servers_needed(workload, Speed(tokens_per_second, peak)) == servers


def test_no_speed_gives_the_paper_s_servers_for_both_loads() -> None:
    """One for a light load and eight for five times as much: the paper's are constants."""
    speeds = [Speed(rate / 10) for rate in range(1, 2000)]
    assert not [speed for speed in speeds if (servers_needed(LIGHT, speed), servers_needed(HEAVY, speed)) == (1, 8)]


shares = st.floats(0, 0.9)
dollars = st.floats(0, 1e5)
cases = st.builds(
    Case,
    st.builds(Workload, st.floats(0, 1e4), st.floats(0, 1e4)),
    st.builds(ApiPrice, st.floats(0, 100), st.floats(0, 100)),
    st.builds(LocalPrice, dollars, dollars, dollars, st.integers(1, 100), dollars),
    st.none() | st.builds(Speed, st.floats(0.1, 1e5), st.floats(1, 10)),
)


@given(cases, st.builds(Uncertain, shares, shares, shares))
@settings(max_examples=60, deadline=None)
def test_a_band_holds_what_is_assumed_and_is_wider_for_more_doubt(case: Case, off: Uncertain) -> None:
    band = breakeven_band(case, off)

    assert band.assumed == case.breakeven_months
    exact = breakeven_band(case, Uncertain(0, 0, 0))
    assert exact == Band(case.breakeven_months, case.breakeven_months, case.breakeven_months)
    if band.best is None:
        assert band.assumed is None
    if band.assumed is None:
        assert band.worst is None
    else:
        assert band.best is not None
        assert band.best <= band.assumed * (1 + 1e-9)
        assert band.worst is None or band.worst >= band.assumed * (1 - 1e-9)


def test_a_band_of_the_light_column() -> None:
    band = breakeven_band(Case(LIGHT, GPT_4O, ONE_SERVER), Uncertain(prices=0.2, load=0.3))

    # Best: the API 20 % dearer, servers 20 % cheaper, 30 % more load. Worst: the other way round.
    assert band.best == pytest.approx((800 + 0.8 * 2539) / (1950 * 1.2 * 1.3 - 0.8 * 30))
    assert band.worst == pytest.approx((800 + 1.2 * 2539) / (1950 * 0.8 * 0.7 - 1.2 * 30))


def test_what_is_rented_may_never_pay_and_what_might_has_no_worst() -> None:
    rented = LocalPrice(800, 0, 0, rent_usd_per_month=1900)
    band = breakeven_band(Case(LIGHT, GPT_4O, rented), Uncertain())

    assert band.assumed == pytest.approx(800 / 50)
    assert band.worst is None
    assert breakeven_band(Case(LIGHT, GPT_4O, LocalPrice(0, 0, 9000)), Uncertain()) == Band(None, None, None)
