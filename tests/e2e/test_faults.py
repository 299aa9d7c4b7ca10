"""Something dies in the middle of an alignment: it ends as the one in which nothing happened.

A train worker, a cluster's second node, the driver (three times), the MLflow server. All computations run on one
thread, so that even the bits are the same, and adapters have the same digests.
"""

import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import Outcome, Workspace, workers_of, workspace
from tests.integration.ray_head import ray_head, ray_node
from tests.mlflow_server import MlflowServer, Wire, mlflow_server
from tests.tiny import tiny_base

pytestmark = pytest.mark.e2e

DOWN_S = 30
"""How long the MLflow server is away."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base")).path


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What comes of it when nothing dies."""
    with_nothing = workspace(tmp_path_factory.mktemp("undisturbed"), base)
    with_nothing.ended(with_nothing.start())
    return with_nothing.outcome()


@pytest.fixture
def space(base: Path, tmp_path: Path) -> Iterator[Workspace]:
    space = workspace(tmp_path, base)
    yield space
    space.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path / "server") as server:
        yield server


def test_nothing_is_doubled_to_begin_with(undisturbed: Outcome) -> None:
    assert len(undisturbed.adapters) == len(undisturbed.rounds) == 2
    assert undisturbed.versions == tuple(sorted(undisturbed.adapters))
    assert undisturbed.parents == ("FINISHED",)
    assert undisturbed.nested == ("0 FINISHED", "1 FINISHED")
    assert undisturbed.traces == (4, 4, 4), "the base model's answers, and those of two rounds"


def test_a_train_worker_dies(space: Workspace, undisturbed: Outcome) -> None:
    process = space.start()
    space.until(lambda: space.trains(0), process)
    (victim,) = workers_of(process)
    victim.kill()
    space.ended(process)
    assert space.outcome() == undisturbed


def test_the_driver_dies_while_it_asks_while_it_trains_and_while_it_registers(
    space: Workspace, undisturbed: Outcome
) -> None:
    paid: dict[str, float] = {}
    moments = (
        lambda: "round 0: offline/judge judges" in space.said,
        lambda: space.trains(1),
        lambda: space.versions() == 2,
    )
    for moment in moments:
        process = space.start()
        space.until(moment, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert paid.items() <= space.replies().items(), "a reply was asked for twice"
        paid = space.replies()
    space.ended(space.start())
    assert space.said.count("going on with MLflow run") == len(moments)
    assert paid.items() <= space.replies().items()
    assert space.outcome() == undisturbed


def test_a_cluster_loses_the_node_that_trains_and_then_the_next_one(space: Workspace, undisturbed: Outcome) -> None:
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        with ray_head(Path(folder), cpus=0, threads=1) as head:
            token = head.environment["RAY_AUTH_TOKEN_PATH"]
            space.environment |= {"RAY_ADDRESS": head.gcs, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
            with ray_node(Path(folder), head) as second:
                process = space.start()
                space.until(lambda: space.trains(0), process)
                assert workers_of(second.process), "the train worker is not on the second node"
                second.raylet.kill()
                second.process.wait()
            space.until(lambda: "waiting for a node" in space.said, process)
            with ray_node(Path(folder), head) as third:
                space.until(lambda: space.trains(1), process)
                assert workers_of(third.process)
                space.until(lambda: space.trained == 2, process)
                third.raylet.kill()  # nothing is left to train, so nobody waits for another node
                third.process.wait()
            space.ended(process)
    assert space.outcome() == undisturbed


def test_the_mlflow_server_is_away(space: Workspace, server: MlflowServer, undisturbed: Outcome) -> None:
    """It dies when it has registered the first version, and has not said so; the next request finds nobody."""
    wire = Wire(server, b'"source": "models:/m-', server.stop)  # of a model version; a prompt has none
    space.store, space.environment["MLFLOW_TRACKING_URI"] = server.uri, wire.uri
    process = space.start()
    space.until(lambda: wire.lost, process)
    time.sleep(DOWN_S)
    assert process.poll() is None, space.said
    server.start()
    space.ended(process)
    wire.close()
    assert space.outcome() == undisturbed
