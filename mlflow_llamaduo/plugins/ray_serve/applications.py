"""What is deployed: applications of Serve that say of themselves what they are.

What MLflow lists of a deployment stands in an environment variable of the application's ingress. Serve keeps that
with the application, in the cluster: every client reads it there, and it goes when the application goes.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import mlflow
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from mlflow_llamaduo.cluster import PASSED_ON
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.plugins.backend_config import tracking_for
from mlflow_llamaduo.plugins.ray_run import say
from mlflow_llamaduo.plugins.ray_serve.errors import DeploymentError
from mlflow_llamaduo.plugins.ray_serve.models import PYFUNC, Model
from mlflow_llamaduo.plugins.ray_serve.settings import Settings
from mlflow_llamaduo.plugins.ray_serve.target import details, here, surge

DESCRIPTION = "LLAMADUO_DEPLOYMENT"
TRIES = 2
"""Of a replica to load its model, before the deployment has failed."""
LOOKS_EVERY_S = 0.2
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 looked for here, not listened on


@dataclass(frozen=True, slots=True)
class Description:
    """What an application says of itself. Times are UTC, as ISO 8601; `version` is empty where there is none."""

    name: str
    model_uri: str
    resolved_uri: str
    version: str
    task: str
    created: str
    updated: str
    config: Mapping[str, Any] = field(default_factory=dict)
    flavor: str = PYFUNC

    @staticmethod
    def of(name: str, model: Model, settings: Settings, created: str = "") -> "Description":
        """Of what is deployed now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        version = str(model.number or "")
        return Description(name, model.uri, model.resolved, version, model.task, created or now, now, settings.kept)

    @property
    def model(self) -> Model:
        """What is deployed."""
        return Model(self.model_uri, self.resolved_uri, int(self.version or 0), self.task)


@dataclass(frozen=True, slots=True)
class Deployed:
    """An application on the cluster: what it says of itself, and what Serve says of it."""

    description: Description
    status: str
    message: str
    replicas: Mapping[str, int]
    route_prefix: str
    url: str

    def told(self) -> dict[str, Any]:
        """For MLflow: plain values, `name` among them."""
        own = {"status": self.status, "message": self.message, "replicas": dict(self.replicas)}
        where = {"route_prefix": self.route_prefix, "url": self.url}
        return {**asdict(self.description), **own, **where}


def deployed() -> dict[str, Deployed]:
    """Those on the cluster that were deployed by MLflow, by name."""
    return {name: app for name, app in _applications() if app is not None}


def check_free(name: str, route_prefix: str) -> None:
    """See that nothing else has the name's place.

    Raises:
        ConfigError: another application has the name, though MLflow did not deploy it, or the route.
    """
    running = details()
    for other, app in (running or {"applications": {}})["applications"].items():
        if other == name and _described(app) is None:
            raise ConfigError(
                f"{name} is an application of this cluster that was not deployed by MLflow: choose another --name"
            )
        if other != name and app["route_prefix"] == route_prefix:
            raise ConfigError(
                f"route_prefix {route_prefix} is that of application {other}: choose another, -C route_prefix=/..."
            )


def environment_of(model: Model) -> dict[str, str]:
    """What a replica needs to fetch a model.

    Raises:
        ConfigError: the cluster cannot reach the tracking server.
    """
    passed = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name) and name.startswith("MLFLOW_")}
    uris = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    if not model.resolved.startswith(("models:/", "runs:/")):
        return {**passed, **uris} if here() else passed
    on_one_machine = here()
    return {**passed, **{name: tracking_for(uri, here=on_one_machine) for name, uri in uris.items()}}


def deploy(description: Description, settings: Settings, *, host: str, timeout_s: float) -> None:
    """Make the application, or make it anew, and wait until it answers.

    Args:
        description: what it is to say of itself.
        settings: how it is to run.
        host: where Serve listens.
        timeout_s: seconds to wait.

    Raises:
        ConfigError: what is asked cannot be.
        DeploymentError: it does not come up.
    """
    from ray import serve

    from mlflow_llamaduo.plugins.ray_serve.pyfunc_app import by_value

    route = route_of(description.name, settings)
    with by_value():
        target = serve.RunTarget(
            target=_application(description, settings, host), name=description.name, route_prefix=route
        )
        serve.run_many([target], wait_for_applications_running=False)
    _until_running(description.name, timeout_s)


def remove(name: str) -> None:
    """Delete an application, and wait until it has gone."""
    from ray import serve

    serve.delete(name)


def route_of(name: str, settings: Settings) -> str:
    """Where HTTP finds it."""
    return settings.route_prefix or f"/{name}"


def _application(description: Description, settings: Settings, host: str) -> Any:
    import ray

    model = description.model
    variables = environment_of(model)
    told = {DESCRIPTION: json.dumps(asdict(description))}
    if not model.task:
        from mlflow_llamaduo.plugins.ray_serve import pyfunc_app

        actor = {**settings.resources, "runtime_env": {"env_vars": {**variables, **told}}}
        options = {**settings.options, "max_surge_percent": surge(settings, actor), "ray_actor_options": actor}
        options["max_constructor_retry_count"] = TRIES
        return pyfunc_app.application(model.resolved, options)
    from mlflow_llamaduo.plugins.ray_serve import chat_app

    jobs = ray.get_runtime_context().runtime_env
    variables = {**jobs.get("env_vars", {}), **variables}
    return chat_app.application(
        model,
        settings,
        host,
        ingress={**jobs, "env_vars": {**variables, **told}},
        replica={**jobs, "env_vars": variables},
    )


def _until_running(name: str, timeout_s: float) -> None:
    from ray import serve

    deadline = time.monotonic() + timeout_s
    said = ""
    while True:
        app = serve.status().applications.get(name)
        if app is None:
            raise DeploymentError(f"{name} was deleted while it was deployed", INTERNAL_ERROR)
        if app.status == "RUNNING":
            return
        messages = [part.message for part in app.deployments.values() if part.message]
        why = _reason("\n".join(messages) or app.message)
        if app.status == "DEPLOY_FAILED":
            raise DeploymentError(f"{name} did not start: {why}", INTERNAL_ERROR)
        if time.monotonic() > deadline:
            raise DeploymentError(
                f"{name} did not start within {timeout_s:g} s ({why or app.status.value}): give it what it waits "
                "for, or longer (-C timeout_s=...)",
                INTERNAL_ERROR,
            )
        if why and why != said:
            say(why)
            said = why
        time.sleep(LOOKS_EVERY_S)


def _reason(message: str) -> str:
    """The line of Serve's message that says why: the error at the end of a traceback, or the message's first."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    return (lines[-1] if any("Traceback" in line or "ray::" in line for line in lines) else lines[0])[:400]


def _applications() -> Iterator[tuple[str, Deployed | None]]:
    running = details()
    if running is None:
        return
    base = _base(running)
    for name, app in running["applications"].items():
        description = _described(app)
        if description is None:
            yield name, None
            continue
        route = str(app["route_prefix"] or route_of(name, Settings.model_validate(description.config)))
        alive = {
            part: sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
            for part, deployment in app["deployments"].items()
        }
        status = str(getattr(app["status"], "value", app["status"]))
        url = f"{base}{route.rstrip('/')}"
        yield name, Deployed(description, status, _reason(app["message"]), alive, route, url)


def _described(app: Mapping[str, Any]) -> Description | None:
    for deployment in app["deployments"].values():
        actor = deployment["deployment_config"].get("ray_actor_options") or {}
        text = ((actor.get("runtime_env") or {}).get("env_vars") or {}).get(DESCRIPTION)
        if text:
            return Description(**json.loads(text))
    return None


def _base(running: Mapping[str, Any]) -> str:
    """Where HTTP requests are sent: a proxy's own address where Serve listens on all of them."""
    host, port = str(running["http_options"]["host"]), running["http_options"]["port"]
    if host in EVERYWHERE:
        host = next((str(proxy["node_ip"]) for proxy in running["proxies"].values()), "127.0.0.1")
    scheme = "https" if running["http_options"].get("ssl_certfile") else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
