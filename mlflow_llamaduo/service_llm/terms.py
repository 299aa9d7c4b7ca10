"""What a service LLM costs, allows and wants, known before it is asked.

The configuration wins, then the presets (presets.yaml, with date and source), then litellm's table. litellm takes
seconds to import and is not needed for the stand-ins.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from mlflow_llamaduo.config import ServiceModel, nearest
from mlflow_llamaduo.errors import ConfigError

BATCH_DISCOUNT = 0.5
"""Of the price, with OpenAI's and Anthropic's batch APIs."""
BATCH_PROVIDERS = ("openai", "anthropic")


@dataclass(frozen=True, slots=True)
class Terms:
    """One model, resolved: litellm's name, dollars per million tokens, limits a minute, and where they come from."""

    name: str
    input_usd: float
    cached_usd: float
    output_usd: float
    rpm: int | None
    tpm: int | None
    json_schema: bool
    source: str

    @property
    def provider(self) -> str:
        """What stands before the slash."""
        return self.name.partition("/")[0]

    @property
    def offline(self) -> bool:
        """True for the stand-ins of this package."""
        return self.provider == "offline"

    def usd(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """Dollars for so many tokens read, of which some from the provider's prompt cache, and written."""
        fresh = input_tokens - cached_tokens
        return (fresh * self.input_usd + cached_tokens * self.cached_usd + output_tokens * self.output_usd) / 1e6


STAND_INS = ("offline/teacher", "offline/judge")


def terms(llm: ServiceModel) -> Terms:
    """Resolve a configured model.

    Raises:
        ConfigError: nobody knows its price, or the name is neither a preset's nor litellm's.
    """
    preset = presets().get(llm.model, {})
    name = str(preset.get("model", llm.model))
    if name.startswith("offline/"):
        if name not in STAND_INS:
            raise ConfigError(f"no stand-in {name!r}{nearest(name, STAND_INS)}: there are {' and '.join(STAND_INS)}")
        return Terms(name, 0.0, 0.0, 0.0, llm.rpm, llm.tpm, False, "offline stand-in")
    if "/" not in name:
        raise ConfigError(
            f"unknown service LLM {name!r}{nearest(name, presets())}: take a preset ({', '.join(presets())}) "
            "or litellm's name with its provider, such as openai/gpt-4o"
        )
    read, cached, written, source = _prices(name, llm, preset)
    schema = llm.json_schema
    if schema is None:
        schema = preset["json_schema"] if "json_schema" in preset else bool(_litellm().supports_response_schema(name))
    return Terms(
        name, read, cached, written, llm.rpm or preset.get("rpm"), llm.tpm or preset.get("tpm"), schema, source
    )


def _prices(name: str, llm: ServiceModel, preset: Mapping[str, Any]) -> tuple[float, float, float, str]:
    read, written = llm.input_usd_per_mtok, llm.output_usd_per_mtok
    if read is not None and written is not None:
        return read, read, written, "configuration"
    if (read is None) != (written is None):
        raise ConfigError(f"{name}: one price alone does not do: set input_usd_per_mtok and output_usd_per_mtok")
    if preset:
        read, written = preset["input_usd_per_mtok"], preset["output_usd_per_mtok"]
        return read, preset.get("cached_input_usd_per_mtok", read), written, f"preset of {preset['as_of']}"
    try:
        info = _litellm().get_model_info(name)
    except Exception as error:
        raise ConfigError(
            f"the price of {name} is not known: set input_usd_per_mtok and output_usd_per_mtok beside its name in "
            "the profile (0 for a server of your own)"
        ) from error
    if info.get("input_cost_per_token") is None or info.get("output_cost_per_token") is None:
        raise ConfigError(f"litellm knows {name} and not its price: set input_usd_per_mtok and output_usd_per_mtok")
    read, written = 1e6 * info["input_cost_per_token"], 1e6 * info["output_cost_per_token"]
    cached = info.get("cache_read_input_token_cost")
    return read, read if cached is None else 1e6 * cached, written, "litellm's table"


def missing_key(llm: ServiceModel) -> str | None:
    """Why the model cannot be asked: which environment variable is not set. None when all is there."""
    name = presets().get(llm.model, {}).get("model", llm.model)
    if name.startswith("offline/"):
        return None
    if llm.api_key_env:
        found = bool(os.environ.get(llm.api_key_env))
        return None if found else f"{name} needs a key: set the environment variable {llm.api_key_env}"
    if llm.api_base:
        return None
    wanted = _litellm().validate_environment(name)
    if wanted["keys_in_environment"]:
        return None
    names = " and ".join(wanted["missing_keys"]) or "that api_key_env names"
    return f"{name} needs a key: set the environment variable {names}"


@cache
def presets() -> dict[str, dict[str, Any]]:
    """presets.yaml by short name."""
    known = yaml.safe_load((files("mlflow_llamaduo.service_llm") / "presets.yaml").read_text(encoding="utf-8"))
    return dict(known)


def _litellm() -> Any:
    import litellm

    litellm.suppress_debug_info = True
    return litellm
