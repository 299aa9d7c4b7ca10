"""The service LLM in its parts, and how each of them is asked. No secrets: a key is named, not held."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mlflow_llamaduo.config.sections import Listed, Positive, Section, Usd


class ServiceModel(Section):
    """One paid model, or an offline stand-in; a text alone is its name."""

    model: str
    """A preset's short name (`llamaduo doctor --presets` lists them), or litellm's name with its provider
    (`openai/gpt-4o`)."""
    api_base: str | None = None
    """URL of an OpenAI-compatible server; not set: the provider's own."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    """Name of the environment variable that holds the key; not set: the provider's own."""
    rpm: Positive | None = None
    """Requests a minute; not set: the preset's, else learned on the way."""
    tpm: Positive | None = None
    """Tokens a minute, read and written; not set: the preset's, else learned on the way."""
    concurrency: Positive = 64
    """Calls at once."""
    max_tokens: Positive = 4096
    """Tokens of a reply at most."""
    timeout_s: Annotated[float, Field(gt=0)] = 120
    """Seconds for a call."""
    retries: Annotated[int, Field(ge=0)] = 6
    """Further tries after a fault that may pass."""
    input_usd_per_mtok: Usd | None = None
    """Dollars per million tokens read; not set: the preset's, else litellm's table."""
    output_usd_per_mtok: Usd | None = None
    """Dollars per million tokens written; set both prices or neither."""
    json_schema: bool | None = None
    """Send a JSON schema; not set: the preset's word, else litellm's."""
    batch: bool = False
    """The provider's batch API: half the price, within a day; `openai/` and `anthropic/` only."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the replies; how fast, by which key and for how much they are asked does not."""
        return self.model_dump(include={"model", "api_base", "max_tokens", "json_schema"})


def _named(default: str) -> BeforeValidator:
    """A name alone is short for a section; a section without a name is about the stand-in."""

    def section(value: Any) -> Any:
        if isinstance(value, str):
            return {"model": value}
        return {"model": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(section)


class ServiceLLMs(Section):
    """The service LLM in its parts: the generator writes pairs, the judge scores responses and holds the gate."""

    generator: Annotated[ServiceModel, _named("offline/teacher")] = ServiceModel(model="offline/teacher")
    """The model that writes pairs."""
    judge: Annotated[ServiceModel, _named("offline/judge")] = ServiceModel(model="offline/judge")
    """The model that scores answers, and whose scores the gate holds."""
    other_judges: Annotated[tuple[Annotated[ServiceModel, _named("offline/judge")], ...], Listed] = ()
    """Further models that score the same answers; their scores are kept apart and are in no gate: judges differ."""

    @property
    def models(self) -> tuple[ServiceModel, ...]:
        """The distinct ones of all."""
        return tuple(dict.fromkeys((self.judge, self.generator, *self.other_judges)))

    @property
    def judges(self) -> tuple[ServiceModel, ...]:
        """All that judge, the gate's first."""
        return (self.judge, *self.other_judges)
