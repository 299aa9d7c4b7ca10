"""`llamaduo cost`: Table 2 on the terminal, as JSON and as a picture, for other loads and prices too."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlflow_llamaduo.cli import cli

PNG = b"\x89PNG\r\n\x1a\n"


def cost(*options: str | Path) -> Result:
    return CliRunner().invoke(cli, ["cost", *map(str, options)], catch_exceptions=False)


def figures(*options: str | Path) -> dict[str, Any]:
    result = cost("--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize(
    ("workload", "servers", "two", "twelve", "months"),
    [
        ("light", 1, (3900, 3399), (23_400, 3699), 1.739),
        ("heavy", 8, (19_500, 21_592), (117_000, 23_992), 2.220),
    ],
)
def test_the_paper_s_loads_are_table_2(
    workload: str, servers: int, two: tuple[float, float], twelve: tuple[float, float], months: float
) -> None:
    found = figures("--workload", workload)

    assert found["local"]["servers"] == servers
    for month, (api, local) in ((2, two), (12, twelve)):
        row = found["months"][month - 1]
        assert row["month"] == month
        assert row["api_usd"] == pytest.approx(api)
        assert row["local_usd"] == pytest.approx(local, abs=0.01)
    assert found["breakeven_months"]["assumed"] == pytest.approx(months, abs=5e-4)
    assert found["breakeven_months"]["best"] < months < found["breakeven_months"]["worst"]
    assert all(found[part]["source"] for part in ("workload", "api", "local"))


def test_on_the_terminal_a_figure_stands_with_its_source_and_break_even_with_its_band() -> None:
    said = cost("--months", "12").output

    assert "   12       23,400.00        3,699.00       19,701.00" in said
    assert "after 1.7 months" in said
    assert "between 0.9 months and 3.6 months, with prices 20 %, load 30 % off" in said
    assert "[2] 2024-08, LlamaDuo, arXiv 2408.13467, Table 2" in said


def test_servers_follow_from_their_speed_and_the_busiest_hour(tmp_path: Path) -> None:
    file = tmp_path / "load.yaml"
    file.write_text("input_mtok_per_day: 86.4\noutput_mtok_per_day: 8.64\n")  # 100 tokens a second

    assert figures("--workload", file, "--tokens-per-second", "50")["local"]["servers"] == 2
    assert figures("--workload", file, "--tokens-per-second", "50", "--peak", "3")["local"]["servers"] == 6
    assert figures("--workload", file, "--tokens-per-second", "50", "--servers", "9")["local"]["servers"] == 9
    refused = cost("--workload", file)
    assert refused.exit_code == 2
    assert "nobody says how fast l4 is: give --tokens-per-second" in refused.output


def test_what_never_pays_is_never_and_null() -> None:
    options = ("--api", "gpt-4o", "--server", "g5.xlarge", "--servers", "9")

    assert figures(*options)["breakeven_months"] == {"best": None, "assumed": None, "worst": None}
    assert "never\n             never at the best too" in cost(*options).output


def test_a_price_book_of_one_s_own_wins_and_the_rest_of_ours_stays(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "api: {gpt-4o-2024-08: {input_usd_per_mtok: 1, output_usd_per_mtok: 2, date: today, source: the contract}}\n"
        "servers: {rack: {usd: 100, watts: 1000, output_tokens_per_second: 20, date: today, source: an offer}}\n"
        "electricity: {usd_per_kwh: 0.5, date: today, source: the bill}\n"
    )

    found = figures("--prices", file, "--server", "rack")
    assert found["api"]["source"] == "today, the contract"
    assert found["months"][0]["api_usd"] == 30 * (10 * 1 + 1 * 2)
    assert found["local"]["electricity_usd_per_month"] == 360
    assert found["local"]["servers"] == 1, "its speed is in the book"
    assert figures("--prices", file)["local"]["server_usd"] == 2539


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("servers: {a: {usd: 1}}", "servers.a.date: Field required"),
        ("servers: {a: {usd: -1, date: d, source: s}}", "servers.a.usd"),
        ("servers: [1]", "api, servers and gpus are entries by name"),
        ("planes: {}", "planes"),
        ("- 1", "a price book has the keys api, servers, gpus and electricity"),
        ("a: [", "cannot be read"),
        ("electricity: {usd_per_kwh: .nan, date: d, source: s}", "electricity.usd_per_kwh"),
    ],
)
def test_a_price_book_that_is_wrong_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)

    result = cost("--prices", file)
    assert result.exit_code == 2
    assert said in result.output
    assert str(file) in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workload", "nothere"], "light, heavy, traces:EXPERIMENT or a YAML file"),
        (["--server", "g5.large"], "no server 'g5.large' in the price book; did you mean 'g5.xlarge'?"),
        (["--api", "gpt-nothing"], "unknown service LLM 'gpt-nothing'"),
    ],
)
def test_what_is_not_known_is_one_line(options: list[str], said: str) -> None:
    result = cost(*options)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("text", ["", "[]", "input_mtok_per_day: 1", "input_mtok_per_day: x\noutput_mtok_per_day: 1"])
def test_a_load_that_is_none_says_what_is_wanted(tmp_path: Path, text: str) -> None:
    file = tmp_path / "load.yaml"
    file.write_text(text)

    result = cost("--workload", file)
    assert result.exit_code == 2
    assert "input_mtok_per_day and output_mtok_per_day are wanted" in result.output


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    file = tmp_path / "cost.png"
    result = cost("--plot", file)
    assert result.exit_code == 0, result.output
    assert file.read_bytes().startswith(PNG)
    refused = cost("--plot", tmp_path / "no" / "cost.png")
    assert refused.exit_code == 2
    assert "cannot be written: No such file or directory" in refused.output
