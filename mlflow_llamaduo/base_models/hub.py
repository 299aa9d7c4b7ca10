"""Asking the model hub, or the mirror that HF_ENDPOINT names: a quick no where it is out of reach."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_llamaduo.errors import BaseModelError

HUB_TIMEOUT_S = 5.0


@contextmanager
def on_the_hub(name: str, missing: str) -> Iterator[None]:
    """Look a model up, and then fetch of it what the block fetches.

    Args:
        name: of the model.
        missing: what is to be said where it cannot be had; the reason follows.

    Raises:
        BaseModelError: it cannot be had, or cannot be a model's name.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
        yield
    except HFValidationError as error:
        raise BaseModelError(f"{name!r} is no name that the model hub can have") from error
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BaseModelError(f"{missing} ({type(error).__name__}: {reason})") from error
