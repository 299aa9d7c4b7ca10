"""The Ray Serve application.

Ingress   HTTP: keys, limits, names, who answers
Replica   a base with adapters; `serving.replicas` of them
Shadow    copies of answered requests, for another version
Outside   the service LLM, where a project has dollars for it
"""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from mlflow_llamaduo.config import Serving
from mlflow_llamaduo.serving.ingress import Ingress
from mlflow_llamaduo.serving.replica import Replica
from mlflow_llamaduo.serving.service import Service
from mlflow_llamaduo.serving.shadow import Shadow

QUEUED = 16
"""Requests that an ingress keeps when all replicas have as many as they take; more are told to come again."""


def resources(serving: Serving) -> dict[str, Any]:
    """What a replica takes of a machine, in Ray's words: CPUs, GPUs, their kind."""
    gpus, kind = serving.gpus, serving.accelerator_type
    of_kind = {"accelerator_type": kind} if gpus and kind else {}
    return {"num_cpus": 0 if gpus else 1, "num_gpus": gpus, **of_kind}


def application(
    service: Service, *, replica: Mapping[str, Any] | None = None, runtime_env: Mapping[str, Any] | None = None
) -> Application:
    """The application of a service.

    Args:
        service: what it is made of.
        replica: Ray Serve's options for the replicas, over those that follow from the service.
        runtime_env: Ray's, for the ingress and what stands beside it.
    """
    serving, projects = service.serving, service.projects
    options: dict[str, Any] = {
        "max_ongoing_requests": serving.batch_size + serving.waiting,
        "max_queued_requests": QUEUED,
        "ray_actor_options": resources(serving),
    }
    if serving.replicas > 1 and "autoscaling_config" not in (replica or {}):
        options["num_replicas"] = serving.replicas
    writers = serve.deployment(Replica, **{**options, **(replica or {})}).bind(
        service.shelf, service.first, serving, service.lora_rank
    )
    routing = {
        "canary": {task: project.serving.canary.model_dump() for task, project in projects.items()},
        "shadow": {task: project.serving.shadow.model_dump() for task, project in projects.items()},
    }
    # A dictionary each: Serve writes its defaults into what it is given.
    beside = {"runtime_env": dict(runtime_env or {})}
    ingress = serve.deployment(
        Ingress,
        max_ongoing_requests=10_000,  # the replicas' limits are the ones that count
        user_config=routing,
        ray_actor_options={"num_cpus": 1, **beside},
    )
    paid = shadow = None
    if service.paying:
        from mlflow_llamaduo.serving.outside import Outside  # and litellm, which takes seconds

        outside = serve.deployment(Outside, max_ongoing_requests=16, ray_actor_options={"num_cpus": 0, **beside})
        paid = outside.bind(service.paying)
    if service.shadowed:
        judged = {task: project.serving.shadow.judged for task, project in service.paying.items()}
        # Few at once, and few that wait: a copy is never worth a request.
        copies = serve.deployment(
            Shadow, max_ongoing_requests=4, max_queued_requests=8, ray_actor_options={"num_cpus": 0, **beside}
        )
        shadow = copies.bind(writers, paid, judged)
    return ingress.bind(service, writers, paid, shadow)
