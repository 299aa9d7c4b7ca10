"""A real Ray cluster for tests, as `ray start --head` makes one: on free ports, with a token, ended as a group."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

TOKEN = "a-token-that-only-this-test-knows-0123456789abcdef"
PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
)


@dataclass(frozen=True)
class Head:
    """Where it listens, and what a client's environment needs."""

    gcs: str
    api: str
    environment: dict[str, str]


@contextmanager
def ray_head(folder: Path) -> Iterator[Head]:
    """Start a head node; `folder` has a short path, for Ray's sockets lie below it."""
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    token = folder / "token"
    token.write_text(TOKEN)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "LLAMADUO_HOME"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    environment = {**kept, "PATH": path, "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "2"}
    command = [
        *("ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"),
        *("--dashboard-host=127.0.0.1", "--object-store-memory=100000000", f"--temp-dir={folder}/ray"),
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "RAY_AUTH_MODE": "token"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            head = Head(f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}", environment)
            _wait(head, process, folder / "head.log")
            yield head
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):  # Ray's own processes are in the group; jobs end with it
                _signal_group(process.pid, number)
                time.sleep(1)
            process.wait()


def _wait(head: Head, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            answer = httpx.get(f"{head.api}/api/jobs/", headers=headers, timeout=10)
        except httpx.HTTPError:
            time.sleep(0.5)
            continue
        if answer.status_code == 200 and "Ray runtime started" in log.read_text():
            return
        time.sleep(0.5)
    raise AssertionError(f"Ray did not start: {log.read_text()}")


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _free_ports(count: int) -> list[int]:
    """Below the range from which the kernel and Ray's workers take theirs by themselves."""
    with ExitStack() as stack:
        ports: list[int] = []
        for port in range(21000 + os.getpid() % 5000, 32000):
            probe = stack.enter_context(socket.socket())
            if probe.connect_ex(("127.0.0.1", port)):
                ports.append(port)
            if len(ports) == count:
                return ports
    raise AssertionError("no free ports")
