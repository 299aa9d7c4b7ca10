"""A cluster's Jobs API: reach it, follow a job's log to its end, stop it.

Every answer of a cluster that cannot be reached, does not let us in or has forgotten the job becomes one line that
says what to do.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from mlflow_llamaduo.cluster import HOST_AND_PORT
from mlflow_llamaduo.errors import ConfigError, StageError
from mlflow_llamaduo.plugins.backend_config import ADDRESS_VARIABLES, loopback

CHATTY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
LOST = (RuntimeError, OSError, aiohttp.ClientError)
"""What Ray's client raises where the network or the dashboard is gone for a while."""
PATIENCE_S = 300.0
"""How long a cluster may be out of reach before we stop following; the job is none the worse for it."""
EVERY_S = 1.0
STOPS_WITHIN_S = 60.0
CONNECTS_WITHIN_S = 10.0

Write = Callable[[str], object]


def connect(address: str, headers: Mapping[str, str]) -> JobSubmissionClient:
    """A client of the cluster at `address`, which is the Jobs API's, or the cluster's own (host:port).

    The cluster's token is sent where there is one in the places that Ray documents; Ray's own client looks there only
    under RAY_AUTH_MODE=token, though `ray start` asks for it without.

    Raises:
        ConfigError: it cannot be reached, or does not let us in.
    """
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    sent = {**_token(), **headers}
    address = _with_scheme(address)
    if address.startswith("http"):
        _answers(address)
    try:
        with _without_rays_variables():
            return JobSubmissionClient(address, headers=sent)
    except AuthenticationError as error:
        raise ConfigError(
            f"the cluster at {address} wants its token: set RAY_AUTH_TOKEN (on the head, ray get-auth-token shows "
            "it), or name another variable in token_env; an address without http:// wants RAY_AUTH_MODE=token too"
        ) from error
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise _unreachable(address, error) from error


def on_this_machine(address: str, headers: Mapping[str, str]) -> bool:
    """Whether the cluster runs here and so sees this machine's files; a tunnel (kubectl port-forward) ends elsewhere.

    Raises:
        ConfigError: it does not say where it runs.
    """
    if not loopback(address):
        return False
    view, sent = f"{address}/nodes?view=hostNameList", {**_token(), **headers}
    try:
        answer = httpx.get(view, headers=sent, timeout=CONNECTS_WITHIN_S)
        if answer.status_code == httpx.codes.NOT_FOUND:  # a Ray without this view
            return True
        return socket.gethostname() in answer.raise_for_status().json()["data"]["hostNameList"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise _unreachable(address, error) from error


def follow(client: JobSubmissionClient, job: str, write: Write) -> JobStatus:
    """Pass the job's log on until it ends; a connection that breaks is made again, and no character comes twice.

    Args:
        client: of the cluster.
        job: its submission id.
        write: told every piece of the log.

    Returns:
        How it ended.

    Raises:
        StageError: the cluster was out of reach for `PATIENCE_S`, or does not know the job.
    """
    log = _Log(client, job, write)
    reached = time.monotonic()
    while True:
        try:
            client.get_job_status(job)  # the log of a job that is not known looks like a lost connection
            asyncio.run(log.tail())
            if (status := client.get_job_status(job)).is_terminal():
                return status
            reached = time.monotonic()
        except LOST as error:
            _refuse_forgotten(job, error)
            if time.monotonic() - max(reached, log.heard) > PATIENCE_S:
                raise StageError(
                    f"the cluster was out of reach for {PATIENCE_S:.0f} s; the job may go on: attach to it later"
                ) from error
        time.sleep(EVERY_S)


def stop(client: JobSubmissionClient, job: str) -> JobStatus:
    """Stop a job, and wait until it has ended; one that had ended is left as it is.

    Raises:
        StageError: it did not end within `STOPS_WITHIN_S`, or the cluster cannot be asked.
    """
    deadline = time.monotonic() + STOPS_WITHIN_S
    try:
        client.stop_job(job)
        while not (status := client.get_job_status(job)).is_terminal() and time.monotonic() < deadline:
            time.sleep(EVERY_S)
    except LOST as error:
        _refuse_forgotten(job, error)
        raise StageError(f"job {job} may go on, the cluster does not answer: ray job stop {job}") from error
    if not status.is_terminal():
        raise StageError(f"job {job} did not stop in {STOPS_WITHIN_S:.0f} s: ray job stop {job}")
    return status


class _Log:
    """What was shown of a job's log; Ray sends it from its beginning whenever it is asked."""

    def __init__(self, client: JobSubmissionClient, job: str, write: Write) -> None:
        self._client, self._job, self._write = client, job, write
        self._shown = 0
        self.heard = time.monotonic()

    async def tail(self) -> None:
        seen = 0
        async for piece in self._client.tail_job_logs(self._job):
            self.heard = time.monotonic()
            if new := piece[max(0, self._shown - seen) :]:
                self._write(new)
            seen += len(piece)
            self._shown = max(self._shown, seen)


def _refuse_forgotten(job: str, error: Exception) -> None:
    if isinstance(error, RuntimeError) and "404" in str(error) and "does not exist" in str(error):
        raise StageError(
            f"the cluster does not know job {job} any more: it was started anew, or is another"
        ) from error


def _with_scheme(address: str) -> str:
    """The Jobs API's address where `http://` was left out: Ray takes it for the cluster's own, and waits a minute.

    Raises:
        ConfigError: nobody listens at host:port.
    """
    if not (found := HOST_AND_PORT.fullmatch(address)):
        return address
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), CONNECTS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error
    try:
        httpx.get(f"http://{address}/api/version", timeout=CONNECTS_WITHIN_S)
    except httpx.HTTPError:  # what speaks no HTTP is the cluster's own port
        return address
    return f"http://{address}"


def _answers(address: str) -> None:
    """Ray's client waits for minutes where nobody answers; any answer will do here."""
    try:
        httpx.get(f"{address}/api/version", timeout=CONNECTS_WITHIN_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ConfigError:
    reason = (str(error).splitlines() or ["no answer"])[0][:200]
    return ConfigError(
        f"no Ray cluster answers at {address} ({type(error).__name__}: {reason}): start one (ray start --head), open "
        "a tunnel to its port 8265 (kubectl port-forward service/<cluster>-head-svc 8265), or set address"
    )


def _token() -> dict[str, str]:
    """The cluster's token from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token."""
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and file.is_file():
        token = file.read_text(encoding="utf-8").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


@contextmanager
def _without_rays_variables() -> Iterator[None]:
    """Ray's client prefers its variables to the address that it is given; what the user wrote comes first here."""
    hidden: dict[str, Any] = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
