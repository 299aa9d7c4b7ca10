"""What `-C key=value` may say of a deployment, checked before anything is asked of a cluster."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, model_validator

from mlflow_llamaduo.config import Section, nearest
from mlflow_llamaduo.errors import ConfigError

Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Prefix = Annotated[str, StringConstraints(pattern=r"^/$|^(/[A-Za-z0-9_.~-]+)+$")]

FIXED, SCALING = ("num_replicas",), ("min_replicas", "max_replicas")
"""Two ways to say how many; the newer word takes the place of the other."""
NOT_OF_THE_DEPLOYMENT = ("http_host", "http_port", "timeout_s")
"""What is said of this one command, and is not kept with the deployment."""


class Settings(Section):
    """The keys of -C; values may be strings, as MLflow's command gives them.

    `num_replicas` (1), or `min_replicas` (1; 0 lets an idle deployment stop) and `max_replicas` for Serve's
    autoscaling. For each replica: `num_cpus` (1), `num_gpus` (0), `accelerator_type` (Ray's names: L4, A100),
    `max_ongoing_requests`. `route_prefix` is where HTTP finds it (/<name>). `max_surge_percent`: new replicas that an
    update starts beside the old ones (100 where the cluster has room for one, else 0: the old ones end first).
    `profile` names the profile of a llamaduo model's task. `timeout_s`: seconds that the command waits (600).
    `http_host` and `http_port` (127.0.0.1, 8000) hold where the command starts Serve itself.
    """

    num_replicas: Count | None = None
    min_replicas: Annotated[int, Field(ge=0)] | None = None
    max_replicas: Count | None = None
    num_cpus: Amount | None = None
    num_gpus: Amount | None = None
    accelerator_type: str | None = None
    max_ongoing_requests: Count | None = None
    max_surge_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    route_prefix: Prefix | None = None
    profile: str | None = None
    http_host: str | None = None
    http_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 600.0

    @model_validator(mode="after")
    def _how_many(self) -> "Settings":
        if self.num_replicas is not None and (self.min_replicas, self.max_replicas) != (None, None):
            raise ValueError("num_replicas is a fixed number: leave it out, or min_replicas and max_replicas")
        if self.min_replicas is not None and self.max_replicas is None:
            raise ValueError("min_replicas: give max_replicas too")
        if self.max_replicas is not None and (self.min_replicas or 0) > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}")
        return self

    @property
    def kept(self) -> dict[str, Any]:
        """What was said of the deployment, as JSON values."""
        return self.model_dump(exclude_none=True, exclude_unset=True, exclude=set(NOT_OF_THE_DEPLOYMENT))

    @property
    def scale(self) -> dict[str, Any]:
        """How many, as options of a Serve deployment; nothing where nothing was said."""
        if self.max_replicas is not None:
            least = 1 if self.min_replicas is None else self.min_replicas
            return {"autoscaling_config": {"min_replicas": least, "max_replicas": self.max_replicas}}
        return {} if self.num_replicas is None else {"num_replicas": self.num_replicas}

    @property
    def resources(self) -> dict[str, Any]:
        """What each replica takes, as Ray's options of an actor."""
        said = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "accelerator_type": self.accelerator_type}
        return {key: value for key, value in said.items() if value is not None}

    @property
    def options(self) -> dict[str, Any]:
        """Serve's options of the deployment that holds the model, but for its actor's."""
        ongoing = {} if self.max_ongoing_requests is None else {"max_ongoing_requests": self.max_ongoing_requests}
        return {**self.scale, **ongoing}


def parsed(given: Mapping[str, Any] | None, before: Mapping[str, Any] | None = None) -> Settings:
    """The settings, all their problems found together.

    Args:
        given: by the user: keys and values, or nothing.
        before: what is kept of the deployment that is updated.

    Raises:
        ConfigError: an unknown key, or a value that cannot be; one line.
    """
    given = dict(given or {})
    old = dict(before or {})
    for said, other in ((FIXED, SCALING), (SCALING, FIXED)):
        if any(key in given for key in said):
            old = {key: value for key, value in old.items() if key not in other}
    try:
        return Settings.model_validate({**old, **given})
    except ValidationError as error:
        raise ConfigError("; ".join(f"-C {_explained(problem)}" for problem in error.errors())) from error


def _explained(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(message)
    key = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        known = list(Settings.model_fields)
        return f"{key}: unknown key{nearest(key, known) or '; known: ' + ', '.join(known)}"
    if key == "route_prefix":
        message = "expected /, or a path such as /qa that does not end in /"
    return f"{key}={problem['input']}: {message}"
