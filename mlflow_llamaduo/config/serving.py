"""What can be configured of serving: sizes, and who answers which request."""

from typing import Annotated, Literal

from pydantic import Field

from mlflow_llamaduo.config.sections import Percent, Positive, Section, Share, Usd


class Canary(Section):
    """Requests for a task that another version than its champion answers.

    Who asks is known by the request's `user`, or by the API key; nobody's requests go now here, now there.
    """

    to: str = "challenger"
    """The alias, or number, of the version."""
    percent: Percent = 0.0
    """Of the users that it answers."""


class Shadow(Section):
    """Copies of requests that the champion has answered, sent to another version, whose answers nobody gets.

    The judge compares the two answers of some of the copies. The result is a tag of that version.
    """

    to: str = "challenger"
    """The alias, or number, of the version."""
    percent: Percent = 0.0
    """Of the champion's requests that are copied."""
    judged: Share = 0.1
    """Share of the copies that are judged."""
    usd_per_day: Usd = 0.0
    """Dollars a day for judging them; 0 judges none."""


class Fallback(Section):
    """The service LLM (`service_llm.generator`) for requests that the local model fails.

    It fails with an error, when it is overloaded, or when nothing has come for `after_seconds`.
    """

    usd_per_day: Usd = 0.0
    """Dollars a day for the service LLM in the local model's place; 0 is off."""
    after_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0
    """Seconds without an answer, or a stream's first token."""


class Serving(Section):
    """The Ray Serve endpoint; beyond this machine it wants keys."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """The port, on `host`."""
    host: str = "127.0.0.1"
    """Where it listens; beyond loopback it wants keys."""
    keys: str = ""
    """The keys' file; empty: `keys.json` of the working folder, else `LLAMADUO_API_KEYS`."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What writes the answers; `vllm` wants the extra `[vllm]`."""
    replicas: Positive = 1
    """Replicas, each with the base loaded."""
    adapters: Positive = 8
    """Versions that a replica keeps loaded."""
    max_new_tokens: Positive = 512
    """Tokens of an answer at most."""
    batch_size: Positive = 16
    """Answers that a replica writes at once; others wait for a place."""
    waiting: Annotated[int, Field(ge=0)] = 64
    """Requests that wait in a replica; whoever comes then is told to come again."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs of the replica; 0 writes on the CPU."""
    accelerator_type: str = ""
    """Ray's name of the GPU, such as `L4`; empty: any."""
    refresh_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 2.0
    """Seconds between two looks at the registry."""
    trace_share: Share = 0.0
    """Share of the answers that become MLflow traces, redacted."""
    canary: Canary = Canary()
    """Some of the users get another version."""
    shadow: Shadow = Shadow()
    """Another version answers copies."""
    fallback: Fallback = Fallback()
    """The service LLM answers what the local model fails."""
