"""`mlflow deployments create -t ray-serve --name qa -m models:/qa@champion -C num_replicas=2`: models on Ray Serve.

    settings checked -> URI resolved to a version -> cluster -> Serve -> application made -> answers

The base class is not imported by name: MLflow takes a plugin apart by its members, and refuses two clients in one.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow.deployments
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from mlflow_llamaduo.cluster import ADDRESS, runtime_env
from mlflow_llamaduo.config import nearest
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.plugins.ray_serve import applications, target
from mlflow_llamaduo.plugins.ray_serve.applications import Deployed, Description
from mlflow_llamaduo.plugins.ray_serve.errors import DeploymentError, one_line
from mlflow_llamaduo.plugins.ray_serve.models import Model, resolve
from mlflow_llamaduo.plugins.ray_serve.settings import Settings, parsed

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
HELP = """\
ray-serve: MLflow models on Ray Serve

  -t ray-serve                    the cluster of RAY_ADDRESS, else the one that runs on this machine
  -t ray-serve:/10.0.0.5:6379     the cluster whose head listens there; run the command on one of its machines

A cluster is never started (ray start --head starts one); Serve is, where it does not run. A deployment is an
application of Serve: it lives on when the command ends, and `serve status` shows it too.

  -m  models:/name/3, models:/name@alias, models:/name/latest, runs:/<run>/<path>, a path, remote storage.
      An alias is resolved to a version when the deployment is made, and again at every update.
  -f  python_function, the only one; leave it out.

-C key=value (of create, update and run-local)
  num_replicas=2                       a fixed number (1)
  min_replicas=1, max_replicas=4       or Serve's autoscaling
  num_cpus=1, num_gpus=1               of each replica (1 and 0)
  accelerator_type=L4                  as Ray calls it
  max_ongoing_requests=16              of each replica at once
  max_surge_percent=0                  of an update: with 100 new replicas answer before old ones end, with 0 old ones
                                       end first (100 where the cluster has room for a replica more)
  route_prefix=/qa                     where HTTP finds it (/<name>)
  timeout_s=600                        how long the command waits
  http_host=0.0.0.0, http_port=8000    where Serve listens (127.0.0.1, 8000), if this command starts it
  profile=l4                           of a llamaduo model: the profile of its task

Over HTTP
  any pyfunc         POST /<name>/invocations as with `mlflow models serve`; GET /<name>/ping. There are no API keys:
                     keep http_host on loopback, or put a gateway in front.
  llamaduo-<task>    POST /<name>/v1/chat/completions, OpenAI's chat API; beyond loopback it wants API keys
                     (llamaduo keys add), and predict sends that of LLAMADUO_API_KEY.

Loading a pyfunc unpickles what it was saved with, and may so run any code, in the replica. Nothing is loaded but what
-m names: name only models that you trust. The model's own requirements are to be installed on the cluster's machines.
"""


class RayServeClient(mlflow.deployments.BaseDeploymentClient):
    """What `mlflow.deployments.get_deploy_client("ray-serve")` returns.

    Every call connects to the cluster and leaves it; the deployments stay. All errors are `MlflowException`s of one
    line.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        self._endpoints: dict[str, Any] = {}

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploy a model; returns when it answers.

        Args:
            name: of the deployment: letters, digits, `_`, `.`, `-`.
            model_uri: as MLflow takes it; an alias is resolved to a version now.
            flavor: python_function, or None.
            config: see `mlflow deployments help -t ray-serve`.
            endpoint: None; there are no endpoints here.

        Returns:
            What `get_deployment` returns.

        Raises:
            DeploymentError: the name is taken, the model or the cluster is not to be had, or it does not start; of a
                deployment that does not start nothing is left.
        """
        with one_line():
            _no_endpoint(endpoint)
            settings = parsed(config)
            model = resolve(model_uri, flavor)
            _check_name(name)
            with self._connected(model):
                if name in applications.deployed():
                    raise DeploymentError(
                        f"there is a deployment {name} already: update it (mlflow deployments update), or choose "
                        "another --name",
                        RESOURCE_ALREADY_EXISTS,
                    )
                applications.check_free(name, applications.route_of(name, settings))
                _started(Description.of(name, model, settings), settings)
                return self._told(name)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploy anew, with another model or configuration; returns when the new replicas answer.

        Args:
            name: of the deployment.
            model_uri: None for the one that it was made of, whose alias is resolved again.
            flavor: python_function, or None.
            config: keys that change; the others stay.
            endpoint: None.

        Returns:
            What `get_deployment` returns: MLflow's command reads its `flavor`.

        Raises:
            DeploymentError: there is no such deployment, or the new one does not start: then the old one serves on.
        """
        with one_line():
            _no_endpoint(endpoint)
            with self._connected():
                before = self._one(name).description
            settings = parsed(config, before.config)
            model = resolve(model_uri or before.model_uri, flavor)
            with self._connected(model):
                applications.check_free(name, applications.route_of(name, settings))
                _replaced(before, Description.of(name, model, settings, before.created), settings)
                return self._told(name)

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Delete a deployment, and return when it has gone; one that there is not is no error.

        Raises:
            DeploymentError: the application of that name was not deployed by MLflow.
        """
        with one_line():
            _no_endpoint(endpoint)
            if config:
                raise ConfigError(f"-C {', '.join(config)}: delete takes no configuration")
            self._endpoints.pop(name, None)
            with self._connected():
                if name in applications.deployed():
                    applications.remove(name)
                else:
                    applications.check_free(name, "")

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """What `get_deployment` returns, of all that MLflow has deployed there; not of Serve's other applications."""
        with one_line():
            _no_endpoint(endpoint)
            with self._connected():
                return [one.told() for _, one in sorted(applications.deployed().items())]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """What is known of a deployment.

        Returns:
            `name`, `model_uri` (as asked for), `resolved_uri`, `version`, `task`, `flavor`, `config`, `created`,
            `updated`, and of Serve `status`, `message`, `replicas` (running, by deployment), `route_prefix`, `url`.

        Raises:
            DeploymentError: there is none of that name.
        """
        with one_line():
            _no_endpoint(endpoint)
            with self._connected():
                return self._told(name)

    def predict(self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None) -> Any:
        """Ask a deployment, over HTTP.

        Args:
            deployment_name: of the deployment.
            inputs: a DataFrame, an array, a list or a dict; of a llamaduo model prompts (a string, a list, a column
                `prompt`) or a chat body (`{"messages": [...]}`).
            endpoint: None.

        Returns:
            A `mlflow.deployments.PredictionsResponse`.

        Raises:
            DeploymentError: there is none of that name, or it refuses or does not answer.
        """
        from mlflow_llamaduo.plugins.ray_serve.asking import ask

        with one_line():
            _no_endpoint(endpoint)
            if deployment_name is None:
                raise ConfigError("predict wants the name of a deployment")
            known = self._endpoints.get(deployment_name)
            if known is not None:
                try:
                    return ask(known, inputs)
                except DeploymentError as error:  # it may have moved since it was looked up
                    if error.error_code not in ("ENDPOINT_NOT_FOUND", "TEMPORARILY_UNAVAILABLE"):
                        raise
            return ask(self._endpoint(deployment_name), inputs)

    def _endpoint(self, name: str) -> Any:
        from mlflow_llamaduo.plugins.ray_serve.asking import Endpoint

        with self._connected():
            found = self._one(name)
        self._endpoints[name] = Endpoint(found.url, found.description.model.asked_as)
        return self._endpoints[name]

    @contextmanager
    def _connected(self, model: Model | None = None) -> Iterator[None]:
        address = target.address_of(self.target_uri, os.environ)
        # Replicas of a model of ours import this package: it goes with the job, as `llamaduo run` sends it.
        ours = model is not None and model.task
        with target.connected(address, runtime_env({**os.environ, ADDRESS: address}) if ours else None):
            yield

    def _one(self, name: str) -> Deployed:
        known = applications.deployed()
        if name not in known:
            listed = f"; there are: {', '.join(sorted(known))}" if known else "; there is none"
            raise DeploymentError(f"no deployment {name}{nearest(name, known) or listed}", RESOURCE_DOES_NOT_EXIST)
        return known[name]

    def _told(self, name: str) -> dict[str, Any]:
        return self._one(name).told()


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None) -> None:
    """Serve a model on 127.0.0.1 with a Ray of its own, until Ctrl-C; MLflow passes no target here.

    Raises:
        DeploymentError: as `create_deployment`.
    """
    from mlflow_llamaduo.plugins.ray_serve.local import serve_here

    with one_line():
        _check_name(name)
        serve_here(name, resolve(model_uri, flavor), parsed(config))


def target_help() -> str:
    """What `mlflow deployments help -t ray-serve` prints."""
    return HELP


def _started(new: Description, settings: Settings) -> None:
    host, _ = target.start_serve(settings.http_host, settings.http_port)
    try:
        applications.deploy(new, settings, host=host, timeout_s=settings.timeout_s)
    except (DeploymentError, KeyboardInterrupt):
        applications.remove(new.name)
        raise


def _replaced(before: Description, new: Description, settings: Settings) -> None:
    host, _ = target.start_serve(settings.http_host, settings.http_port)
    try:
        applications.deploy(new, settings, host=host, timeout_s=settings.timeout_s)
    except DeploymentError as error:
        old = parsed(before.config)
        applications.deploy(before, old, host=host, timeout_s=old.timeout_s)
        raise DeploymentError(f"{error}; {before.resolved_uri} serves on", INVALID_PARAMETER_VALUE) from error


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name}: letters, digits, _, . and - are wanted, at most 63")


def _no_endpoint(endpoint: str | None) -> None:
    if endpoint is not None:
        raise ConfigError(f"--endpoint {endpoint}: ray-serve has no endpoints; a deployment has a name and a route")
