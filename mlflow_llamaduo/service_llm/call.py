"""One call to a service LLM through litellm: what comes back is a reply, a failure, or something that passes.

Any provider that litellm knows works by its name (`openai/gpt-4o`, `anthropic/...`, `gemini/...`, `vertex_ai/...`,
`bedrock/...`, `azure/...`), and any OpenAI-compatible server by `api_base`. `offline/...` models are served in this
process through the same door. litellm's own retries, cache, Router and budget stay off: docs/decisions/0009.
"""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import litellm
from litellm import exceptions as failures

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request, most_tokens
from mlflow_llamaduo.service_llm.offline.llm import OfflineLLM
from mlflow_llamaduo.service_llm.rate import Limits, limits
from mlflow_llamaduo.service_llm.replies import whole
from mlflow_llamaduo.service_llm.terms import Terms

litellm.suppress_debug_info = True
litellm.telemetry = False
logging.getLogger("LiteLLM").setLevel(logging.ERROR)
litellm.custom_provider_map = [{"provider": "offline", "custom_handler": OfflineLLM()}]

TRANSIENT = (
    failures.RateLimitError,
    failures.Timeout,
    failures.APIConnectionError,
    failures.InternalServerError,
    failures.ServiceUnavailableError,
    failures.BadGatewayError,
)
UNUSABLE = (failures.AuthenticationError, failures.PermissionDeniedError, failures.NotFoundError)
PERMANENT = (failures.BadRequestError, failures.UnprocessableEntityError, failures.APIError)
NO_CREDIT = re.compile(r'Exception - (\{.*"message": ?")?Your credit balance is too low')
"""How Anthropic says that waiting will not help, where its own words begin: what follows may quote the request."""
BACKOFF_S = 1.0
"""The first retry waits 1 to 2 of these, every next one twice as long, a minute at most."""
NEVER_SENT = ("ConnectError", "ConnectTimeout", "ClientConnectorError", "PoolTimeout")


@dataclass(frozen=True, slots=True)
class Passing:
    """A call that may be tried again. `in_doubt`: it reached the provider, who may bill it."""

    reason: str
    refused: bool = False
    in_doubt: bool = False


async def ask(terms: Terms, llm: ServiceModel, request: Request) -> tuple[Reply | Failure | Passing, Limits]:
    """Ask once.

    Raises:
        ConfigError: the provider refused the key, has no credit left or does not know the model.
    """
    began = time.monotonic()
    try:
        answer = await litellm.acompletion(
            model=terms.name,
            messages=[dict(message) for message in request.messages],
            api_base=llm.api_base,
            api_key=api_key(terms, llm),
            timeout=llm.timeout_s,
            num_retries=0,
            max_retries=0,
            **parameters(terms, llm, request),
        )
    except (*TRANSIENT, *UNUSABLE, *PERMANENT) as error:
        return _outcome(error, terms, llm), limits(_headers(error))
    found = limits(getattr(answer, "_hidden_params", {}).get("additional_headers") or {})
    return read(answer, terms, request, seconds=time.monotonic() - began), found


def parameters(terms: Terms, llm: ServiceModel, request: Request) -> dict[str, Any]:
    """Only the token limit is set; sampling stays at the provider's defaults, as in the paper."""
    chosen: dict[str, Any] = {"max_tokens": llm.max_tokens}
    if request.schema and terms.json_schema:
        chosen["response_format"] = {"type": "json_schema", "json_schema": dict(request.schema)}
    return chosen


def read(
    answer: Any, terms: Terms, request: Request | None = None, *, seconds: float = 0.0, price: float = 1.0
) -> Reply | Failure:
    """A reply out of a completion in OpenAI's shape, at a share `price` of the terms'."""
    choice = answer.choices[0] if answer.choices else None
    given, written, cached = _tokens(answer, request)
    usd = price * terms.usd(given, written, cached)
    if choice is not None and choice.finish_reason == "content_filter":
        return Failure("the provider refused to answer (content_filter)", usd)
    if choice is None or not choice.message.content:
        return Failure("the reply is empty", usd)
    cut = choice.finish_reason == "length"
    return Reply(whole(choice.message.content), given, written, usd, cut, seconds)


def api_key(terms: Terms, llm: ServiceModel) -> str | None:
    """The key out of the environment; None leaves it to litellm, which knows each provider's variable."""
    if llm.api_key_env:
        return os.environ.get(llm.api_key_env)
    # A server of the user's own without a key must not be sent OpenAI's; litellm wants some word.
    return "none" if llm.api_base and terms.provider == "openai" else None


def redacted(error: BaseException | str, llm: ServiceModel) -> str:
    """An error in one line without any key in it: providers quote keys back."""
    name = "" if isinstance(error, str) else f"{type(error).__name__}: "
    text = name + " ".join(str(error).split())
    for variable, value in sorted(os.environ.items(), key=lambda item: -len(item[1])):  # one may begin like another
        secret = variable == llm.api_key_env or variable.upper().endswith(("KEY", "TOKEN", "SECRET"))
        if secret and len(value) >= 8:
            text = text.replace(value, f"${variable}")
    return text[:300]


def unusable(terms: Terms, reason: str) -> ConfigError:
    """The error that ends a run: no call to this model will succeed."""
    return ConfigError(f"{terms.name} cannot be used: {reason}")


def _tokens(answer: Any, request: Request | None) -> tuple[int, int, int]:
    """Tokens read, written, and read from the provider's cache; a server that counts none is not free of charge."""
    usage = getattr(answer, "usage", None)
    given, written = getattr(usage, "prompt_tokens", None) or 0, getattr(usage, "completion_tokens", None) or 0
    if not given and not written:
        text = (answer.choices[0].message.content or "") if answer.choices else ""
        return most_tokens(request) // 4 if request else 0, len(text.encode("utf-8", "replace")) // 4 + 1, 0
    return given, written, getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None) or 0


def _outcome(error: Exception, terms: Terms, llm: ServiceModel) -> Failure | Passing:
    """By litellm's class, and by the status where it has none of its own (403 with OpenAI, 529 with Anthropic)."""
    status = getattr(error, "status_code", None) or 0
    no_credit = "insufficient_quota" in _codes(error) or NO_CREDIT.search(str(error))
    if no_credit or status == 402 or isinstance(error, UNUSABLE) or status == 403:
        raise unusable(terms, redacted(error, llm)) from None
    if isinstance(error, TRANSIENT) or status == 409 or status >= 500:
        return _passing(error, llm)
    return Failure(_refusal(error, llm))


def _codes(error: BaseException) -> set[str]:
    """Code and type in the body of the provider's answer, which litellm's text does not show (OpenAI)."""
    codes: set[str] = set()
    for cause in _causes(error):
        body = getattr(cause, "body", None)
        inner = body.get("error", body) if isinstance(body, dict) else {}
        said = inner if isinstance(inner, dict) else {}
        codes |= {str(getattr(cause, "code", "")), str(said.get("code")), str(said.get("type"))}
    return codes


def _passing(error: Exception, llm: ServiceModel) -> Passing:
    reason = redacted(error, llm)
    refused = isinstance(error, failures.RateLimitError)
    status = getattr(error, "status_code", None)
    broken = any(isinstance(cause, ValueError) for cause in _causes(error))  # an answer that is no JSON was one
    answered = bool(_headers(error)) and status not in (408, 504) and not broken  # a plain 500 is not billed
    sent = not any(type(cause).__name__ in NEVER_SENT for cause in _causes(error))
    return Passing(reason, refused, in_doubt=sent and not answered and not refused)


def _refusal(error: Exception, llm: ServiceModel) -> str:
    reason = redacted(error, llm)
    if isinstance(error, failures.ContextWindowExceededError):
        return f"the request is longer than the model's context: {reason}"
    if isinstance(error, failures.ContentPolicyViolationError):
        return f"the provider refused the content: {reason}"
    return reason


def _headers(error: Exception) -> Mapping[str, str]:
    found = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    return found or {}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what lies behind it."""
    for _ in range(20):  # chains may be circular
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
