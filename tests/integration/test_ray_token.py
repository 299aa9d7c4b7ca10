"""Ray listens on every interface, whatever the service does: who comes there without the token is turned away."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CLUSTER = """
import sys
import ray
from mlflow_llamaduo.cluster import cluster
with cluster():
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.readline()
"""
GUEST = """
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("in", ray.get(ray.remote(num_cpus=0)(lambda: 7).remote()))
"""


@dataclass(frozen=True)
class Host:
    """A cluster of our own: where it is, and who it belongs to."""

    address: str
    home: Path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=of(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        yield Host(process.stdout.readline().strip(), home)
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()


def of(home: Path, **more: str) -> dict[str, str]:
    """The environment of somebody with this home, who has said nothing about Ray."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith("RAY_")}, "HOME": str(home), **more}


def knock(host: Host, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Connect from a process of its own, and have a function run there."""
    command = [sys.executable, "-c", GUEST, host.address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


def test_who_has_the_token_is_let_in(host: Host) -> None:
    came = knock(host, of(host.home, RAY_AUTH_MODE="token"))

    assert came.stdout == "in 7\n", came.stderr


@pytest.mark.parametrize(
    "more", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x" * 64}]
)
def test_who_has_none_or_another_is_not(host: Host, tmp_path: Path, more: dict[str, str]) -> None:
    came = knock(host, of(tmp_path, **more))

    assert came.returncode != 0
    assert "in 7" not in came.stdout
    assert "InvalidAuthToken" in came.stderr, came.stderr
