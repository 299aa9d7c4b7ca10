"""Servers on loopback, for tests, benchmarks and pictures: ports for them, and a process while it answers."""

import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from random import SystemRandom

PORTS = range(20_000, 32_768)
"""Above those of Ray's workers (10002 to 19999), below those that Linux hands out by itself (32768 and on).

Ray takes dozens of the latter as it starts: one that was free when a test looked is Ray's when the server comes.
"""
STARTS_WITHIN_S = 300.0
ENDS_WITHIN_S = 60.0


def free_ports(count: int) -> list[int]:
    """So many different ports that nobody listens on.

    They are drawn from all of `PORTS`, and not with the seeds that a test sets: whoever draws beside us gets others.
    """
    found: list[int] = []
    for port in SystemRandom().sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        if _free(port):
            found.append(port)
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    (port,) = free_ports(1)
    return port


def answers(url: str) -> bool:
    """Whether a URL answers with 200; what is no HTTP at all is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as found:  # noqa: S310 - our own
            return bool(found.status == 200)
    except (OSError, HTTPException):
        return False


@contextmanager
def started(
    command: list[str], folder: Path, environment: Mapping[str, str], url: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server from when `url` answers with 200 to the end of the block; then it is ended as with Ctrl-C.

    What it says is in `<its name>-<when>.log` of the folder.

    Raises:
        RuntimeError: it ended, or did not answer in time; with the last of what it said.
    """
    log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
        try:
            until = time.monotonic() + STARTS_WITHIN_S
            while not answers(url):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command)} does not answer at {url}: {log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield process
        finally:
            _end(process)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
