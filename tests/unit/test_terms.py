import pytest

from mlflow_llamaduo.config import ServiceLLMs
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.terms import missing_key, price

MODEL = "openai/gpt-4o"
SECRET = "planted-0123456789abcdef"


def test_prices_are_the_configurations_else_the_table_of_litellm() -> None:
    assert price(MODEL, ServiceLLMs()) == pytest.approx((2.5, 10.0))
    assert price(MODEL, ServiceLLMs(input_usd_per_mtok=1, output_usd_per_mtok=2)) == (1, 2)
    assert price("offline/judge", ServiceLLMs(input_usd_per_mtok=1, output_usd_per_mtok=2)) == (0, 0)


def test_a_model_of_unknown_price_is_no_free_model() -> None:
    with pytest.raises(ConfigError, match=r"price of openai/unheard-of is not known.*input_usd_per_mtok"):
        price("openai/unheard-of", ServiceLLMs())


def test_a_missing_key_is_told_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("X_API_KEY", raising=False)

    assert missing_key(MODEL, ServiceLLMs()) == f"{MODEL} needs a key: set the environment variable OPENAI_API_KEY"
    assert "X_API_KEY" in str(missing_key(MODEL, ServiceLLMs(api_key_env="X_API_KEY")))
    assert missing_key("offline/judge", ServiceLLMs(api_key_env="X_API_KEY")) is None
    assert missing_key("openai/local", ServiceLLMs(api_base="http://here/v1")) is None

    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("X_API_KEY", SECRET)
    assert missing_key(MODEL, ServiceLLMs()) is None
    assert missing_key(MODEL, ServiceLLMs(api_key_env="X_API_KEY")) is None
