"""What can be configured of serving: sizes, and who answers which request."""

from typing import Annotated, Literal

from pydantic import Field

from mlflow_llamaduo.config.sections import Percent, Positive, Section, Share, Usd


class Canary(Section):
    """Requests for a task that another version than its champion answers: `percent` of those who ask.

    Who asks is known by the request's `user`, or by the API key; nobody's requests go now here, now there.
    """

    to: str = "challenger"
    percent: Percent = 0.0


class Shadow(Section):
    """Copies of requests that the champion has answered, sent to another version, whose answers nobody gets.

    `percent` of the requests are copied; the judge compares the two answers of a share of `judged` of the copies, for
    `usd_per_day` dollars at most. The result is a tag of that version.
    """

    to: str = "challenger"
    percent: Percent = 0.0
    judged: Share = 0.1
    usd_per_day: Usd = 0.0


class Fallback(Section):
    """The service LLM (`service_llm.generator`) for requests that the local model fails; off without `usd_per_day`.

    It fails with an error, when it is overloaded, or when nothing has come for `after_seconds`.
    """

    usd_per_day: Usd = 0.0
    after_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0


class Serving(Section):
    """The Ray Serve endpoint; beyond this machine it wants keys.

    Each of `replicas` loads the base once, holds `adapters` on it, writes `batch_size` answers at once and lets
    `waiting` requests more wait for a place. The registry is looked at every `refresh_seconds`. A share of
    `trace_share` of the requests become MLflow traces, redacted.
    """

    host: str = "127.0.0.1"
    keys: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    engine: Literal["transformers", "vllm"] = "transformers"
    replicas: Positive = 1
    adapters: Positive = 8
    max_new_tokens: Positive = 512
    batch_size: Positive = 16
    waiting: Annotated[int, Field(ge=0)] = 64
    gpus: Annotated[int, Field(ge=0)] = 1
    accelerator_type: str = ""
    refresh_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 2.0
    trace_share: Share = 0.0
    canary: Canary = Canary()
    shadow: Shadow = Shadow()
    fallback: Fallback = Fallback()
