"""What a model costs, allows and wants: configuration, then presets, then litellm's table."""

import re
from datetime import date
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.terms import Terms, missing_key, presets, terms

SECRET = "planted-0123456789abcdef"
PRESETS = sorted(presets())


def of(model: str, **settings: Any) -> Terms:
    return terms(ServiceModel.model_validate({"model": model, **settings}))


def complaint(model: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        of(model, **settings)
    return str(caught.value)


def prices(found: Terms) -> tuple[float, float, float]:
    return found.input_usd, found.cached_usd, found.output_usd


# Presets


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_model_a_price_and_where_they_come_from(name: str) -> None:
    preset = presets()[name]
    found = of(name)

    assert re.fullmatch(r"[a-z_]+/\S+", found.name)
    assert found.name == preset["model"]
    assert 0 < found.cached_usd <= found.input_usd < found.output_usd < 100
    assert isinstance(preset["as_of"], date)
    assert preset["source"].startswith("https://")
    assert str(preset["as_of"]) in found.source


@pytest.mark.parametrize("name", PRESETS)
def test_the_limits_of_a_preset_are_whole_numbers_or_not_published(name: str) -> None:
    found = of(name)

    assert all(limit is None or (isinstance(limit, int) and limit >= 1) for limit in (found.rpm, found.tpm))
    assert isinstance(found.json_schema, bool)


@pytest.mark.parametrize("name", [name for name in PRESETS if "successor" in presets()[name]])
def test_the_successor_of_a_preset_is_one_that_is_not_retired(name: str) -> None:
    successor = presets()[presets()[name]["successor"]]

    assert "retired" not in successor
    assert successor["model"].split("/")[0] == presets()[name]["model"].split("/")[0]


@pytest.mark.parametrize("name", [name for name in PRESETS if "retired" in presets()[name]])
def test_a_retired_preset_has_a_successor_and_a_date(name: str) -> None:
    assert isinstance(presets()[name]["retired"], date)
    assert presets()[name]["successor"] in presets()


def test_no_preset_has_a_key_that_nobody_reads() -> None:
    known = {
        "model", "input_usd_per_mtok", "cached_input_usd_per_mtok", "output_usd_per_mtok", "rpm", "tpm",
        "json_schema", "as_of", "source", "paper", "successor", "retired",
    }  # fmt: skip
    assert set().union(*presets().values()) <= known


def test_the_models_of_the_paper_are_there() -> None:
    assert {name for name in PRESETS if presets()[name].get("paper")} == {
        "gpt-4o",
        "claude-3-sonnet",
        "gemini-1.5-flash",
    }


# Who wins


def test_a_preset_wins_over_the_table_of_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    def lies(*_: object) -> dict[str, float]:
        return {"input_cost_per_token": 1.0, "output_cost_per_token": 1.0}

    monkeypatch.setattr(litellm, "get_model_info", lies)

    assert prices(of("gpt-4o")) == (2.5, 1.25, 10)
    assert prices(of("openai/gpt-4o")) == (1e6, 1e6, 1e6)


def test_the_configuration_wins_over_a_preset_and_over_the_table() -> None:
    mine = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2, "rpm": 7, "tpm": 8, "json_schema": False}
    for model in ("gpt-4o", "openai/gpt-4o", "openai/unheard-of"):
        found = of(model, **mine)
        assert (*prices(found), found.rpm, found.tpm, found.json_schema) == (1, 1, 2, 7, 8, False)
        assert found.source == "configuration"


def test_a_price_of_nothing_is_a_price() -> None:
    assert prices(of("openai/my-own", input_usd_per_mtok=0, output_usd_per_mtok=0)) == (0, 0, 0)
    assert prices(of("gpt-4o", input_usd_per_mtok=0, output_usd_per_mtok=0)) == (0, 0, 0)


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o"])
def test_one_price_of_the_two_is_not_left_aside(model: str) -> None:
    try:
        found = of(model, input_usd_per_mtok=999)
    except ConfigError:
        return
    assert found.input_usd == 999


def test_limits_are_the_presets_one_by_one_where_they_are_not_configured() -> None:
    assert (of("gpt-4o").rpm, of("gpt-4o").tpm) == (500, 30000)
    assert (of("gpt-4o", rpm=9).rpm, of("gpt-4o", rpm=9).tpm) == (9, 30000)
    assert (of("openai/gpt-4o").rpm, of("openai/gpt-4o", tpm=5).tpm) == (None, 5)


def test_a_model_that_is_no_preset_costs_what_litellm_says() -> None:
    found = of("openai/gpt-4o-mini")

    assert prices(found) == pytest.approx((0.15, 0.075, 0.6))
    assert (found.source, found.json_schema) == ("litellm's table", True)


def test_a_stand_in_that_there_is_not_is_told_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="no stand-in 'offline/jugde'; did you mean 'offline/judge'"):
        of("offline/jugde")


def test_a_stand_in_is_free_whatever_is_configured() -> None:
    found = of("offline/judge", input_usd_per_mtok=1, output_usd_per_mtok=2)

    assert prices(found) == (0, 0, 0)
    assert (found.offline, found.provider, found.json_schema) == (True, "offline", False)
    assert not of("gpt-4o").offline


# What is not known


def test_a_model_of_unknown_price_is_no_free_model() -> None:
    assert re.search(r"price of openai/unheard-of is not known.*input_usd_per_mtok", complaint("openai/unheard-of"))


@pytest.mark.parametrize("info", [{}, {"input_cost_per_token": 1e-6, "output_cost_per_token": None}])
def test_a_model_that_litellm_knows_without_a_price_is_not_free_either(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, float | None]
) -> None:
    monkeypatch.setattr(litellm, "get_model_info", lambda *_: info)

    assert "not its price: set input_usd_per_mtok" in complaint("openai/half-known")


@pytest.mark.parametrize(("typed", "meant"), [("gpt-4", "gpt-4o"), ("claude-sonnet-5", "claude-sonnet-5.5")])
def test_an_unknown_short_name_suggests_the_nearest(typed: str, meant: str) -> None:
    assert f"unknown service LLM {typed!r}; did you mean {meant!r}?" in complaint(typed)


def test_an_unknown_short_name_is_told_what_there_is_though_it_has_a_price() -> None:
    text = complaint("zzz", input_usd_per_mtok=1, output_usd_per_mtok=1)

    assert "did you mean" not in text
    assert all(name in text for name in ("openai/gpt-4o", *PRESETS))


@given(st.text(alphabet="abgpt-4o./ \0é", max_size=12))
def test_any_name_has_terms_or_an_error_that_names_it(name: str) -> None:
    try:
        found = of(name)
    except ConfigError as error:
        assert name in str(error) or repr(name) in str(error)
    else:
        assert found.offline or min(prices(found)) >= 0


# Dollars


def test_dollars_are_per_million_tokens_and_cached_ones_are_cheaper() -> None:
    found = of("gpt-4o")

    assert found.usd(1_000_000, 0) == pytest.approx(2.5)
    assert found.usd(0, 1_000_000) == pytest.approx(10)
    assert found.usd(1_000_000, 0, 400_000) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25)
    assert found.usd(0, 0) == 0


# Keys


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "X_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def missing(model: str, **settings: Any) -> str | None:
    return missing_key(ServiceModel.model_validate({"model": model, **settings}))


@pytest.mark.usefixtures("no_keys")
def test_a_missing_key_is_told_by_the_name_of_its_variable() -> None:
    assert missing("openai/gpt-4o") == "openai/gpt-4o needs a key: set the environment variable OPENAI_API_KEY"
    assert "ANTHROPIC_API_KEY" in str(missing("claude-sonnet-5.5"))
    assert missing("gpt-4o", api_key_env="X_API_KEY") == (
        "openai/gpt-4o needs a key: set the environment variable X_API_KEY"
    )


@pytest.mark.usefixtures("no_keys")
def test_stand_ins_and_servers_of_ones_own_need_no_key() -> None:
    assert missing("offline/judge", api_key_env="X_API_KEY") is None
    assert missing("openai/local", api_base="http://here/v1") is None
    assert "X_API_KEY" in str(missing("openai/local", api_base="http://here/v1", api_key_env="X_API_KEY"))


@pytest.mark.usefixtures("no_keys")
def test_a_key_that_is_set_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("X_API_KEY", "")
    assert missing("gpt-4o") is None
    assert "X_API_KEY" in str(missing("gpt-4o", api_key_env="X_API_KEY"))

    monkeypatch.setenv("X_API_KEY", SECRET)
    assert missing("gpt-4o", api_key_env="X_API_KEY") is None
