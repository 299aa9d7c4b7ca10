"""The Ray cluster that a target names, and the Serve that runs on it.

    ray-serve                    the cluster of RAY_ADDRESS, else the one that runs on this machine
    ray-serve:/10.0.0.5:6379     the cluster whose head listens there

A cluster is never started here: a deployment is to outlive the command that makes it.
"""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE

from mlflow_llamaduo.cluster import ADDRESS, HOST_AND_PORT, LISTENS_WITHIN_S
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.plugins.backend_config import LOOPBACK
from mlflow_llamaduo.plugins.ray_serve.errors import DeploymentError, first_line
from mlflow_llamaduo.plugins.ray_serve.settings import Settings

TARGET = "ray-serve"
HERE = "auto"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
START = "start one with `ray start --head`"


def address_of(target: str, environment: Mapping[str, str]) -> str:
    """The cluster's address, `host:port`, or `auto` for whichever runs on this machine.

    Args:
        target: as MLflow was given it.
        environment: of this process.

    Raises:
        ConfigError: it is no address of a running cluster.
    """
    given = target.removeprefix(TARGET).removeprefix(":").lstrip("/")
    where = f"-t {target}" if given else f"{ADDRESS}={environment.get(ADDRESS)}"
    address = given or environment.get(ADDRESS) or HERE
    if address == HERE or HOST_AND_PORT.fullmatch(address):
        return address
    if address == "local":
        raise ConfigError(
            f"{where}: a deployment wants a cluster that runs: {START}, or mlflow deployments run-local"
        )
    raise ConfigError(
        f"{where} is no address of a running cluster: give {TARGET}:/<host>:6379 on one of its machines (elsewhere, "
        "run the command there: mlflow run -b ray, or ray job submit)"
    )


@contextmanager
def connected(address: str, runtime_env: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Be a driver of the cluster for the length of the block; a connection that was there before is used, and stays.

    Raises:
        DeploymentError: there is no such cluster, it does not let us in, or this process is in another.
    """
    import ray

    if ray.is_initialized():
        _same(address, ray.get_runtime_context().gcs_address)
        yield
        return
    _listens(address)
    log = logging.getLogger("ray.serve")
    level = log.level
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=dict(runtime_env) if runtime_env else None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _lost(address, f"{first_line(error)}; for one with a token set RAY_AUTH_MODE=token") from error
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
        log.setLevel(level)


def here() -> bool:
    """Whether all machines of the cluster are this one, and so see its files."""
    import ray

    return all(node["NodeManagerHostname"] == socket.gethostname() for node in ray.nodes() if node["Alive"])


def details() -> dict[str, Any] | None:
    """All that Serve tells of itself and its applications, as its REST API does; None where it does not run."""
    from ray.serve.context import _get_global_client  # serve.status() asks here too, and leaves half of it out

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.get_serve_details()


def start_serve(host: str | None, port: int | None) -> tuple[str, int]:
    """Where Serve listens; it is started where it does not run, on loopback unless `host` says otherwise.

    Raises:
        ConfigError: it runs elsewhere already than it is asked to, or the port is in use.
        DeploymentError: it does not come up.
    """
    running = details()
    if running is None:
        asked = (host or DEFAULT_HOST, port or DEFAULT_PORT)
        if here():
            _free(*asked)
        _start(*asked)
        return asked
    options = running["http_options"]
    found = (str(options["host"]), int(options["port"]))
    if (host or found[0], port or found[1]) != found:
        raise ConfigError(
            f"-C http_host, http_port: Serve runs on this cluster already, on {found[0]}:{found[1]}, for all its "
            "applications: leave them out, or end it (serve shutdown) first"
        )
    return found


def surge(settings: Settings, actor: Mapping[str, Any]) -> int:
    """Serve's max_surge_percent: whether new replicas start before old ones end.

    Serve waits for ever for room beside the old ones where there is none. An autoscaler may make some: that is for
    the user to say.

    Args:
        settings: what the user says.
        actor: Ray's options of one replica.
    """
    import ray

    if settings.max_surge_percent is not None:
        return settings.max_surge_percent
    free = ray.available_resources()
    wanted = {"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0)}
    return 100 if all(free.get(kind, 0) >= amount for kind, amount in wanted.items()) else 0


def loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    return host in LOOPBACK


def _start(host: str, port: int) -> None:
    from ray import serve

    try:
        serve.start(http_options={"host": host, "port": port})
    except (RuntimeError, TimeoutError) as error:
        raise DeploymentError(f"Serve did not start on {host}:{port}: {first_line(error)}", INTERNAL_ERROR) from error


def _free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"Serve cannot listen on {host}:{port} ({error.strerror}): choose with -C http_host=... and "
                "-C http_port=..."
            ) from error


def _listens(address: str) -> None:
    """Say at once where nobody listens: Ray itself tries for two minutes."""
    if found := HOST_AND_PORT.fullmatch(address):
        try:
            place = (found["host"].strip("[]"), int(found["port"]))
            socket.create_connection(place, timeout=LISTENS_WITHIN_S).close()
        except (OSError, OverflowError) as error:
            raise _lost(address, f"nobody listens there: {error}") from error


def _lost(address: str, why: str) -> DeploymentError:
    if address == HERE:
        text = f"no Ray cluster runs on this machine ({why}): {START}, or name one: -t {TARGET}:/<host>:6379"
    else:
        text = f"no Ray cluster at {address} lets us in ({why}): correct the address, or {START} there"
    return DeploymentError(text, TEMPORARILY_UNAVAILABLE)


def _same(asked: str, connected_to: str) -> None:
    if asked == HERE or _one_place(asked, connected_to):
        return
    raise DeploymentError(
        f"this process is connected to the Ray cluster at {connected_to}, not {asked}: call ray.shutdown() first",
        TEMPORARILY_UNAVAILABLE,
    )


def _one_place(asked: str, connected_to: str) -> bool:
    """Whether two addresses may be one: Ray calls this machine by another than loopback."""
    (host, port), (other, others_port) = _place(asked), _place(connected_to)
    return port == others_port and (host == other or loopback(host) or loopback(other))


def _place(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    try:
        return socket.gethostbyname(host.strip("[]")), port
    except OSError:  # an IPv6 address, or a name that is not known
        return host.strip("[]"), port
