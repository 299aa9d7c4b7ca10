"""A real Ray cluster for tests, as `ray start --head` makes one: on free ports, with a token, ended as a group."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tools.servers import free_ports

TOKEN = "a-token-that-only-this-test-knows-0123456789abcdef"
PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
)
NODE_PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port")


@dataclass(frozen=True)
class Head:
    """Where it listens, and what a client's environment needs."""

    gcs: str
    api: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Node:
    """Another machine of the cluster, which is this one."""

    process: "subprocess.Popen[bytes]"

    @property
    def raylet(self) -> psutil.Process:
        """The process without which the node is lost."""
        (found,) = [child for child in psutil.Process(self.process.pid).children() if child.name() == "raylet"]
        return found


@contextmanager
def ray_head(folder: Path, *, cpus: int = 2, threads: int = 2) -> Iterator[Head]:
    """Start a head node; `folder` has a short path, for Ray's sockets lie below it.

    Args:
        folder: of token, log, and Ray's own files.
        cpus: that the node offers.
        threads: that a worker computes with.
    """
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    token = folder / "token"
    token.write_text(TOKEN)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "LLAMADUO_HOME"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    environment = {**kept, "PATH": path, "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": str(threads)}
    options = ["--head", f"--num-cpus={cpus}", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}/ray"]
    options += [f"--{name}={port}" for name, port in ports.items()]
    with _started(options, folder / "head.log", environment) as process:
        head = Head(f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}", environment)
        _wait(head, process, folder / "head.log")
        yield head


@contextmanager
def ray_node(folder: Path, head: Head, *, cpus: int = 1) -> Iterator[Node]:
    """Start one more node of a cluster, for the length of the block."""
    ports = dict(zip(NODE_PORTS, free_ports(len(NODE_PORTS)), strict=True))
    options = [f"--address={head.gcs}", f"--num-cpus={cpus}"]
    options += [f"--{name}={port}" for name, port in ports.items()]
    log = folder / f"node-{ports[NODE_PORTS[0]]}.log"
    with _started(options, log, head.environment) as process:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield Node(process)


@contextmanager
def _started(options: Sequence[str], log: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`ray start` as the leader of a group, which ends with the block."""
    with log.open("w") as out:
        process = subprocess.Popen(
            ["ray", "start", "--block", "--disable-usage-stats", "--object-store-memory=100000000", *options],
            cwd=log.parent,
            env={**environment, "RAY_AUTH_MODE": "token"},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
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
