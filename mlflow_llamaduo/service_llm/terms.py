"""What a service LLM costs and which key it wants, known before it is asked.

litellm, which knows both for paid models, takes seconds to import and is not needed for the stand-ins.
"""

import os
from typing import Any

from mlflow_llamaduo.config import ServiceLLMs
from mlflow_llamaduo.errors import ConfigError


def price(model: str, settings: ServiceLLMs) -> tuple[float, float]:
    """Dollars per million tokens read and written: the configuration's, else litellm's table.

    Raises:
        ConfigError: neither knows the price.
    """
    if model.startswith("offline/"):
        return 0.0, 0.0
    if settings.input_usd_per_mtok is not None and settings.output_usd_per_mtok is not None:
        return settings.input_usd_per_mtok, settings.output_usd_per_mtok
    try:
        info = _litellm().get_model_info(model)
    except Exception as error:
        raise ConfigError(
            f"the price of {model} is not known: set service_llm.input_usd_per_mtok and output_usd_per_mtok "
            "in the profile (0 for a server of your own)"
        ) from error
    return 1e6 * (info.get("input_cost_per_token") or 0.0), 1e6 * (info.get("output_cost_per_token") or 0.0)


def missing_key(model: str, settings: ServiceLLMs) -> str | None:
    """Why the model cannot be asked: which environment variable is not set. None when all is there."""
    if model.startswith("offline/"):
        return None
    if settings.api_key_env:
        found = bool(os.environ.get(settings.api_key_env))
        return None if found else f"{model} needs a key: set the environment variable {settings.api_key_env}"
    if settings.api_base:
        return None
    wanted = _litellm().validate_environment(model)
    if wanted["keys_in_environment"]:
        return None
    names = " or ".join(wanted["missing_keys"]) or "named by service_llm.api_key_env"
    return f"{model} needs a key: set the environment variable {names}"


def _litellm() -> Any:
    import litellm

    litellm.suppress_debug_info = True
    return litellm
