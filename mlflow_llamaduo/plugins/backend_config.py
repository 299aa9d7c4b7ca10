"""What `-c '{...}'` may say of a run on a Ray cluster, checked before anything is sent there.

    {"address": "http://127.0.0.1:8265", "working_folder": "/mnt/llamaduo", "env": ["HF_TOKEN", "OPENAI_API_KEY"]}

Secrets are named, never written: the names of environment variables, whose values the job gets.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationError, field_validator

from mlflow_llamaduo.config import nearest
from mlflow_llamaduo.config.sections import Section
from mlflow_llamaduo.errors import ConfigError

MLFLOWS_OWN = ("ENV_MANAGER", "SYNCHRONOUS", "DOCKER_ARGS", "STORAGE_DIR", "build_image", "docker_auth")
"""What MLflow adds to every backend's configuration."""
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where Ray's own commands look for a cluster, in their order."""
RAYS_OWN_KEYS = ("_inject_current_ray", "_ray_commit", "_ray_release")
"""Of a runtime environment, what Ray writes there for itself."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Of an environment variable."""
Amount = Annotated[float, Field(ge=0)]


class BackendConfig(Section):
    """The keys of `mlflow run . -b ray -c ...`.

    `address` is the Jobs API's (the dashboard's), by default what RAY_API_SERVER_ADDRESS or RAY_ADDRESS say, else
    http://127.0.0.1:8265. `env` names environment variables of this machine that the job gets; `headers_env` maps an
    HTTP header to the environment variable that holds its value, and `token_env` names that of a bearer token.
    `working_folder` is the job's LLAMADUO_HOME: on one machine the project's own `.llamaduo`, else a folder that the
    cluster keeps. `runtime_env` is Ray's (pip, env_vars, ...); `exclude` has patterns of files that are not
    sent besides the usual ones, `include` of those that are sent although they look like secrets. The command itself
    takes `entrypoint_num_cpus`, `entrypoint_num_gpus` and `entrypoint_resources` for its own (its workers ask for
    theirs); `entrypoint_memory` is in bytes. `attach` is the id of a run that was submitted before. `block`: follow
    the job to its end; left out, `mlflow run` does, and `mlflow.projects.run` as its `synchronous` says.
    """

    address: str | None = None
    attach: str | None = None
    working_folder: str | None = None
    env: tuple[Name, ...] = ()
    headers_env: Mapping[str, Name] = {}
    token_env: Name | None = None
    runtime_env: Mapping[str, Any] = {}
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    entrypoint_num_cpus: Amount | None = None
    entrypoint_num_gpus: Amount | None = None
    entrypoint_memory: Annotated[int, Field(ge=0)] | None = None
    entrypoint_resources: Mapping[str, Amount] = {}
    submission_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")] = "llamaduo"
    block: bool | None = None

    @field_validator("address")
    @classmethod
    def _no_password(cls, address: str | None) -> str | None:
        if address and urlsplit(address).username is not None:
            raise ValueError("holds a user name or password; name its environment variable in headers_env instead")
        return address

    @field_validator("working_folder")
    @classmethod
    def _folder(cls, folder: str | None) -> str | None:
        if folder is not None and ("://" in folder or not Path(folder).is_absolute()):
            raise ValueError("is to be an absolute path of the cluster's machines: /mnt/llamaduo")
        return folder

    @field_validator("runtime_env")
    @classmethod
    def _not_ours(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := {"working_dir", "py_modules", "excludes"} & set(given):
            raise ValueError(
                f"{', '.join(sorted(taken))}: the project's folder is sent by itself; "
                "leave files out with exclude, beside runtime_env"
            )
        return given

    @field_validator("runtime_env")
    @classmethod
    def _rays(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ray itself takes keys that it does not know, and says nothing."""
        if not given:
            return given
        from ray.runtime_env import RuntimeEnv

        known = [name.removeprefix("_") for name in RuntimeEnv.known_fields if name not in RAYS_OWN_KEYS]
        if unknown := sorted(set(given).difference(known)):
            near = nearest(unknown[0], known)
            raise ValueError(f"Ray knows no {', '.join(unknown)}{near}; known: {', '.join(sorted(known))}")
        if not isinstance(given.get("env_vars", {}), dict):
            raise ValueError('env_vars: names and values are wanted: {"NAME": "value"}; env takes names alone')
        try:
            RuntimeEnv(**{key: value for key, value in given.items() if key != "env_vars"})
        except (TypeError, ValueError, OSError) as error:
            raise ValueError(" ".join(str(error).split())) from error
        return given

    @property
    def environment(self) -> dict[str, str]:
        """What the job's environment holds besides MLflow's variables: runtime_env's, and the values of `env`."""
        fixed = {str(key): str(value) for key, value in self.runtime_env.get("env_vars", {}).items()}
        return fixed | {name: os.environ[name] for name in self.env}

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers for the Jobs API."""
        headers = {header: os.environ[name] for header, name in self.headers_env.items()}
        if self.token_env:
            headers["Authorization"] = f"Bearer {os.environ[self.token_env]}"
        return headers


def parsed(given: Mapping[str, Any]) -> BackendConfig:
    """The configuration, all its problems found together.

    Args:
        given: as MLflow passes it: the user's keys with its own.

    Raises:
        ConfigError: one line for each unknown key, wrong value and environment variable that is not set.
    """
    problems = _not_for_clusters(given)
    own = {key: value for key, value in given.items() if key not in MLFLOWS_OWN}
    config = None
    try:
        config = BackendConfig.model_validate(own)
    except ValidationError as error:
        problems += [_explained(problem) for problem in error.errors()]
    if config is not None:
        problems += _not_set(config)
    if config is None or problems:
        raise ConfigError("\n".join(f"-b ray -c: {problem}" for problem in problems))
    return config


def address_of(config: BackendConfig) -> str:
    """The cluster's address: the configuration's, else what Ray's variables say, else this machine's.

    It is the Jobs API's, or, where RAY_ADDRESS gives that, the cluster's own (host:port).
    """
    if config.address:
        return config.address.rstrip("/")
    given = (os.environ.get(name) for name in ADDRESS_VARIABLES)
    return next((address.rstrip("/") for address in given if address), DEFAULT_ADDRESS)


def loopback(address: str) -> bool:
    """Whether an address is one of this machine, or a tunnel that begins here."""
    return urlsplit(address if "://" in address else f"//{address}").hostname in LOOPBACK


def tracking_for(uri: str, *, here: bool) -> str:
    """The tracking URI as the job is to use it: a local one is made absolute, for the job's folder is another.

    Args:
        uri: MLflow's, of this process.
        here: whether the cluster runs on this machine, and so sees its files.

    Raises:
        ConfigError: the cluster cannot reach it.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        if loopback(uri) and not here:
            raise _unreachable(uri)
        return uri
    if scheme not in ("", "file", "sqlite") or uri == "databricks":
        return uri
    if not here:
        raise _unreachable(uri)
    if scheme == "sqlite":
        file, mark, query = uri.removeprefix("sqlite:///").partition("?")
        return f"sqlite:///{Path(file).absolute()}{mark}{query}"
    return Path(uri.removeprefix("file://")).absolute().as_uri()


def _unreachable(uri: str) -> ConfigError:
    return ConfigError(
        f"the cluster cannot reach the tracking URI {uri}: start an MLflow server that it can reach, and set "
        "MLFLOW_TRACKING_URI=http://<its host>:5000"
    )


def _not_for_clusters(given: Mapping[str, Any]) -> list[str]:
    problems = []
    if given.get("ENV_MANAGER") not in (None, "local"):
        problems.append(
            f"--env-manager {given['ENV_MANAGER']} is for this machine: the cluster's image has the environment, "
            "or runtime_env.pip adds to it"
        )
    if given.get("DOCKER_ARGS"):
        problems.append("--docker-args are for this machine: the cluster has an image of its own")
    return problems


def _not_set(config: BackendConfig) -> Iterable[str]:
    named = {"env": config.env, "headers_env": tuple(config.headers_env.values())}
    named["token_env"] = (config.token_env,) if config.token_env else ()
    return [
        f"{key}: the environment variable {name} is not set"
        for key, names in named.items()
        for name in names
        if name not in os.environ
    ]


def _explained(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return f"unknown key {path[-1]}{nearest(path[-1], BackendConfig.model_fields)}"
    return f"{'.'.join(path)}: {problem['msg'].removeprefix('Value error, ')}"
