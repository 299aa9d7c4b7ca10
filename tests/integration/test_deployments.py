"""`mlflow deployments -t ray-serve` on a real cluster: the command, the Python client and HTTP, each a process."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature
from sklearn.linear_model import LinearRegression

from mlflow_llamaduo.plugins.ray_serve.errors import DeploymentError
from mlflow_llamaduo.plugins.ray_serve.models import Model, resolve
from tests.integration import tiny
from tests.integration.ray_head import Head, ray_head
from tests.integration.served import ROOT, Registry
from tools.servers import free_port

TIMES = """
import os, sys
import mlflow

class Times(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.by = context.model_config["by"]
        if self.by == 0:
            raise RuntimeError("the weights are gone")

    def predict(self, context, model_input, params=None):
        told = {"process": os.getpid(), "free": "mlflow_llamaduo" not in sys.modules}
        return [{"y": x * self.by, **told} for x in model_input["x"]]

mlflow.models.set_model(Times())
"""


@dataclass(frozen=True)
class Site:
    """A cluster, a tracking store with models, and where Serve is to listen."""

    head: Head
    folder: Path
    tracking: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        given = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": self.head.gcs, "MLFLOW_TRACKING_URI": self.tracking}
        return {**self.head.environment, **given}

    def mlflow(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`mlflow deployments ...`, as it is typed, in a process of its own."""
        return subprocess.run(
            ["mlflow", "deployments", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def post(self, route: str, body: object) -> httpx.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return httpx.post(
            f"http://127.0.0.1:{self.port}{route}/invocations",
            content=text,
            headers={"content-type": "application/json"},
            timeout=60,
        )


class Client:
    """A deployments client of another process: Ray's settings are read once a process, and are not this one's."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any, target: str = "ray-serve", **named: Any) -> Any:
            return self._pool.submit(_call, target, method, arguments, named).result(200)

        return call


def _enter(environment: dict[str, str]) -> None:
    os.environ.update(environment)


def _call(target: str, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    from mlflow.deployments import get_deploy_client

    return getattr(get_deploy_client(target), method)(*arguments, **named)


def _other_application(name: str) -> None:
    """One that somebody else deploys, with Serve's own API."""
    import ray
    from ray import serve

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    serve.run(
        serve.deployment(_Other).options(ray_actor_options={"num_cpus": 0}).bind(), name=name, route_prefix="/o"
    )
    ray.shutdown()


def _in_the_cluster_already() -> str:
    """What a process that is connected is told of another cluster; its connection stays."""
    import ray

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    try:
        _call("ray-serve", "list_deployments", (), {})
        assert ray.is_initialized()
        with pytest.raises(MlflowException) as told:
            _call("ray-serve:/10.0.0.5:6379", "list_deployments", (), {})
        return str(told.value.message)
    finally:
        ray.shutdown()


class _Other:
    def __call__(self) -> str:
        return "other"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a tracking store with models: `times` 1 (by 2), 2 (by 3), 3 (broken), and `line`."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "times.py").write_text(TIMES)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("models", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment(experiment_id=experiment)  # the process's, which tests of other stores have set
    x = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    with mlflow.start_run(experiment_id=experiment):
        for by in (2, 3, 0):
            mlflow.pyfunc.log_model(
                name="times",
                python_model=str(folder / "times.py"),
                model_config={"by": by},
                signature=ModelSignature(inputs=infer_signature(x).inputs),
                registered_model_name="times",
                pip_requirements=[],
            )
        fitted = LinearRegression().fit(x.to_numpy(), np.array([3.0, 5.0, 7.0]))
        mlflow.sklearn.log_model(fitted, name="line", registered_model_name="line", pip_requirements=[])
    yield folder
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def site(store: Path) -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="d", ignore_cleanup_errors=True) as folder,
        ray_head(Path(folder), cpus=4, threads=1) as head,
    ):
        yield Site(head, store, f"sqlite:///{store}/mlflow.db", free_port())


@pytest.fixture(scope="module")
def pool(site: Site) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_enter, initargs=(site.environment,)) as pool:
        yield pool


@pytest.fixture(scope="module")
def client(site: Site, pool: ProcessPoolExecutor) -> Client:
    """With Serve running, which the command of the first deployment has started."""
    client = Client(pool)
    client.create_deployment("line", "models:/line/1", config={"http_port": site.port, "num_cpus": 0.5})
    return client


@pytest.fixture(scope="module")
def times(client: Client) -> str:
    """A deployment that no test changes."""
    client.create_deployment("times", "models:/times/1", config={"num_cpus": 0.5})
    return "times"


@pytest.fixture
def moving(client: Client) -> Iterator[str]:
    """A deployment of times@moving, which is version 1."""
    MlflowClient().set_registered_model_alias("times", "moving", "1")
    client.create_deployment("moving", "models:/times@moving", config={"num_cpus": 0.5})
    yield "moving"
    client.delete_deployment("moving")


def names(client: Client) -> set[str]:
    return {one["name"] for one in client.list_deployments()}


def test_what_the_command_deploys_outlives_it(site: Site, client: Client) -> None:
    MlflowClient().set_registered_model_alias("times", "typed", "1")
    create = ["create", "-t", "ray-serve", "--name", "typed", "-m", "models:/times@typed"]
    made = site.mlflow(*create, "-C", "num_replicas=2", "-C", "num_cpus=0.5", "-C", "route_prefix=/some/where")
    assert made.returncode == 0, made.stderr
    assert "python_function deployment typed is created" in made.stdout
    found = client.get_deployment("typed")
    assert {key: found[key] for key in ("name", "model_uri", "resolved_uri", "version", "flavor", "status")} == {
        "name": "typed",
        "model_uri": "models:/times@typed",
        "resolved_uri": "models:/times/1",
        "version": "1",
        "flavor": "python_function",
        "status": "RUNNING",
    }
    assert found["config"] == {"num_replicas": 2, "num_cpus": 0.5, "route_prefix": "/some/where"}
    assert sum(found["replicas"].values()) == 2
    assert names(client) >= {"line", "typed"}

    (site.folder / "in.json").write_text('[{"x": 1.5}, {"x": 2.0}]')
    asked = site.mlflow("predict", "-t", f"ray-serve:/{site.head.gcs}", "--name", "typed", "-I", "in.json")
    assert [row["y"] for row in json.loads(asked.stdout)["predictions"]] == [3.0, 4.0], asked.stderr

    deleted = site.mlflow("delete", "-t", "ray-serve", "--name", "typed")
    assert deleted.returncode == 0, deleted.stderr
    assert "typed" not in names(client)
    assert site.post("/some/where", {"inputs": [1]}).status_code == 404


def test_http_speaks_mlflows_scoring_protocol(site: Site, times: str) -> None:
    bodies: list[dict[str, Any]] = [
        {"dataframe_split": {"columns": ["x"], "data": [[2.0], [4.0]]}},
        {"dataframe_records": [{"x": 2.0}, {"x": 4.0}]},
        {"inputs": {"x": [2.0, 4.0]}},
        {"instances": [{"x": 2.0}, {"x": 4.0}]},
    ]
    for body in bodies:
        rows = site.post("/times", body).raise_for_status().json()["predictions"]
        assert [row["y"] for row in rows] == [4.0, 8.0], body
        assert all(row["free"] for row in rows), "a replica does not import this package"
    base = f"http://127.0.0.1:{site.port}/times"
    assert httpx.get(f"{base}/ping").status_code == httpx.get(f"{base}/health").status_code == 200
    assert httpx.get(f"{base}/version").text == mlflow.__version__
    csv = httpx.post(f"{base}/invocations", content="x\n5.0\n", headers={"content-type": "text/csv"}).json()
    assert csv["predictions"][0]["y"] == 10.0


def test_a_bad_request_is_told_without_a_traceback(site: Site, times: str) -> None:
    bad = [
        "{",
        "[]",
        "7",
        "{}",
        '{"inputs": [1], "instances": [1]}',
        '{"dataframe_split": {"data": 3}}',
        "\x00",
        "[" * 9,
    ]
    bad += ['{"dataframe_split": {"columns": ["x"], "data": [["a"]]}}', '{"dataframe_records": [{"z": 1}]}']
    for body in bad:
        answer = site.post("/times", body)
        assert 400 <= answer.status_code < 500, (body, answer.text)
        assert "Traceback" not in answer.text and "stack_trace" not in answer.text
    base = f"http://127.0.0.1:{site.port}/times"
    assert httpx.get(f"{base}/invocations").status_code == 405
    assert httpx.get(f"{base}/nowhere").status_code == httpx.get(f"{base}/../x").status_code == 404
    assert httpx.post(f"{base}/invocations", content="x", headers={"content-type": "text/html"}).status_code == 415


def test_a_replica_that_dies_is_loaded_again(site: Site, times: str) -> None:
    process = site.post("/times", {"dataframe_records": [{"x": 1.0}]}).json()["predictions"][0]["process"]
    os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        answer = site.post("/times", {"dataframe_records": [{"x": 1.0}]})
        if answer.status_code == 200 and answer.json()["predictions"][0]["process"] != process:
            return
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.3)


def test_an_update_resolves_the_alias_again_and_keeps_what_was_said(site: Site, client: Client, moving: str) -> None:
    before = client.get_deployment(moving)
    assert before["version"] == "1", "an alias that has moved is not followed"
    MlflowClient().set_registered_model_alias("times", "moving", "2")
    assert client.get_deployment(moving)["version"] == "1"
    told = client.update_deployment(moving, config={"min_replicas": "1", "max_replicas": "2"})
    assert told["flavor"] == "python_function", "MLflow's command reads it"
    after = client.get_deployment(moving)
    assert (after["version"], after["resolved_uri"]) == ("2", "models:/times/2")
    assert after["config"] == {"num_cpus": 0.5, "min_replicas": 1, "max_replicas": 2}
    assert after["created"] == before["created"] <= after["updated"]
    assert client.predict(moving, pd.DataFrame({"x": [2.0]}))["predictions"][0]["y"] == 6.0


def test_an_update_that_fails_leaves_the_old_one_serving(client: Client, moving: str) -> None:
    with pytest.raises(
        MlflowException, match=r"^moving did not start: .*the weights are gone.*; models:/times/1 serves"
    ):
        client.update_deployment(moving, "models:/times/3")
    after = client.get_deployment(moving)
    assert (after["version"], after["status"]) == ("1", "RUNNING")
    assert client.predict(moving, pd.DataFrame({"x": [2.0]}))["predictions"][0]["y"] == 4.0


def test_what_does_not_start_leaves_nothing(client: Client) -> None:
    with pytest.raises(MlflowException, match=r"^broken did not start: .*the weights are gone"):
        client.create_deployment("broken", "models:/times/3")
    with pytest.raises(MlflowException, match=r"^slow did not start within 0.01 s .*timeout_s"):
        client.create_deployment("slow", "models:/times/1", config={"num_cpus": 0.5, "timeout_s": 0.01})
    assert not {"broken", "slow"} & names(client)


def test_predict_takes_what_the_models_own_predict_takes(client: Client) -> None:
    for inputs in (pd.DataFrame({"a": [4.0]}), np.array([[4.0]]), [[4.0]], {"inputs": [[4.0]]}):
        answer = client.predict("line", inputs)
        assert answer.get_predictions().iloc[0, 0] == pytest.approx(9.0)
    with pytest.raises(MlflowException, match=r"/line/invocations answered 400") as refused:
        client.predict("line", {"inputs": [["a"]]})
    assert refused.value.error_code == "BAD_REQUEST"


def test_errors_are_one_line(client: Client, site: Site, times: str) -> None:
    cases: list[tuple[str, Callable[[], Any]]] = [
        (
            "RESOURCE_ALREADY_EXISTS: there is a deployment times",
            lambda: client.create_deployment(times, "models:/times/1"),
        ),
        ("RESOURCE_DOES_NOT_EXIST: no deployment tims; did you", lambda: client.get_deployment("tims")),
        ("RESOURCE_DOES_NOT_EXIST: no deployment zzz; there are", lambda: client.predict("zzz", [1])),
        ("RESOURCE_DOES_NOT_EXIST: no deployment zzz", lambda: client.update_deployment("zzz")),
        (
            "INVALID_PARAMETER_VALUE: models:/times/99 is not",
            lambda: client.create_deployment("n", "models:/times/99"),
        ),
        ("INVALID_PARAMETER_VALUE: models:/times@x is not", lambda: client.create_deployment("n", "models:/times@x")),
        ("INVALID_PARAMETER_VALUE: nowhere is not to be", lambda: client.create_deployment("n", "nowhere")),
        (
            "INVALID_PARAMETER_VALUE: --flavor sklearn",
            lambda: client.create_deployment("n", "models:/line/1", "sklearn"),
        ),
        ("INVALID_PARAMETER_VALUE: --endpoint e", lambda: client.list_deployments(endpoint="e")),
        (
            "INVALID_PARAMETER_VALUE: route_prefix /times is that of application times",
            lambda: client.create_deployment("n", "models:/line/1", config={"route_prefix": "/times"}),
        ),
        (
            "INVALID_PARAMETER_VALUE: -C http_host, http_port: Serve runs on this cluster already",
            lambda: client.create_deployment("n", "models:/line/1", config={"http_host": "0.0.0.0"}),  # noqa: S104
        ),
    ]
    for expected, call in cases:
        with pytest.raises(MlflowException) as raised:
            call()
        assert f"{raised.value.error_code}: {raised.value.message}".startswith(expected), raised.value
        assert "\n" not in raised.value.message
    client.delete_deployment("zzz")  # as MLflow asks: no error


def test_applications_of_others_are_left_alone(client: Client, pool: ProcessPoolExecutor) -> None:
    pool.submit(_other_application, "other").result(200)
    assert "other" not in names(client)
    not_ours = "other is an application of this cluster that was not deployed by MLflow"
    with pytest.raises(MlflowException, match=not_ours):
        client.delete_deployment("other")
    with pytest.raises(MlflowException, match=not_ours):
        client.create_deployment("other", "models:/line/1")


def test_a_connection_that_was_there_before_is_used_and_stays(pool: ProcessPoolExecutor) -> None:
    told = pool.submit(_in_the_cluster_already).result(200)
    assert told.startswith("this process is connected to the Ray cluster at ") and "not 10.0.0.5:6379" in told


def test_the_command_shows_one_line_and_no_traceback(site: Site, store: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = f"ray-serve:/127.0.0.1:{free.getsockname()[1]}"
        begun = time.monotonic()
        failed = site.mlflow("create", "-t", target, "--name", "n", "-m", "models:/line/1")
    assert time.monotonic() - begun < 60
    assert failed.returncode == 1
    assert failed.stderr.strip().startswith(
        f"Error: no Ray cluster at {target.removeprefix('ray-serve:/')} lets us in"
    )
    assert "`ray start --head`" in failed.stderr and "Traceback" not in failed.stderr
    helped = site.mlflow("help", "-t", "ray-serve")
    assert "num_replicas" in helped.stdout and "unpickles" in helped.stdout


def test_run_local_serves_until_ctrl_c(store: Path, site: Site) -> None:
    port = free_port()
    arguments = ["run-local", "-t", "ray-serve", "--name", "mine", "-m", "models:/times/2", "-C", f"http_port={port}"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    process = subprocess.Popen(
        ["mlflow", "deployments", *arguments],
        cwd=store,
        # RAY_ADDRESS names a cluster, and is not for this command.
        env={**kept, "PATH": path, "MLFLOW_TRACKING_URI": site.tracking, "RAY_ADDRESS": site.head.gcs},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next((line for line in process.stderr if "Ctrl-C" in line), "")
        assert f"models:/times/2 is mine at http://127.0.0.1:{port}/mine" in line
        body = {"dataframe_records": [{"x": 1.0}]}
        answer = httpx.post(f"http://127.0.0.1:{port}/mine/invocations", json=body, timeout=60)
        assert answer.json()["predictions"][0]["y"] == 3.0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "stopped" in err and "Traceback" not in out + err


def test_a_version_of_ours_is_known_by_what_loads_it(store: Path) -> None:
    (store / "ours").mkdir(exist_ok=True)
    (store / "ours" / "package.json").write_text("{}")
    logged = mlflow.pyfunc.log_model(
        name="ours",
        loader_module="mlflow_llamaduo.pyfunc_model",
        data_path=str(store / "ours"),
        registered_model_name="llamaduo-closed_qa",
        pip_requirements=[],
    )
    number = int(logged.registered_model_version)
    MlflowClient().set_registered_model_alias("llamaduo-closed_qa", "champion", str(number))
    uri = "models:/llamaduo-closed_qa@champion"
    assert resolve(uri) == Model(uri, f"models:/llamaduo-closed_qa/{number}", number, "closed_qa")
    assert resolve("models:/line/1").task == ""
    with pytest.raises(ValueError, match="not registered: give models:/llamaduo-<task>/<version>"):
        resolve(logged.model_uri)


def test_an_error_is_mlflows_and_clicks() -> None:
    error = DeploymentError("what, where, how")
    assert isinstance(error, MlflowException)
    assert (error.message, error.format_message(), error.exit_code) == ("what, where, how", "what, where, how", 1)


def test_a_version_of_ours_is_deployed_asked_moved_and_deleted(site: Site, client: Client, tmp_path: Path) -> None:
    models = MlflowClient().get_experiment_by_name("models")
    made = Registry(site.tracking, tmp_path, tiny.base(tmp_path / "base"), models.experiment_id)
    for seed in (1, 2):
        made.publish("coding", seed)
    made.alias("coding", "champion", 1)
    environment = {"LLAMADUO_PROJECTS": str(ROOT / "projects"), "LLAMADUO_CACHE": str(tmp_path / "cache")}
    named = ["-t", "ray-serve", "--name", "coding"]

    def asked(body: object) -> Any:
        (tmp_path / "in.json").write_text(json.dumps(body))
        done = site.mlflow("predict", *named, "-I", str(tmp_path / "in.json"), **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    create = [
        "create",
        *named,
        "-m",
        "models:/llamaduo-coding@champion",
        "-C",
        "num_replicas=2",
        "-C",
        "num_cpus=0.2",
    ]
    created = site.mlflow(*create, **environment)
    assert created.returncode == 0, created.stderr
    found = client.get_deployment("coding")
    assert (found["version"], found["status"], found["config"]["num_replicas"]) == ("1", "RUNNING", 2)
    first = asked([{"prompt": "Who built the mill?"}, {"prompt": "When?"}])["predictions"]
    assert len(first) == 2
    chat = asked({"messages": [{"role": "user", "content": "Who built the mill?"}], "temperature": 0})
    assert (chat["model"], chat["predictions"]) == ("coding@1", first[:1])

    updated = site.mlflow("update", *named, "-m", "models:/llamaduo-coding/2", "-C", "num_replicas=1", **environment)
    assert updated.returncode == 0, updated.stderr
    assert client.get_deployment("coding")["version"] == "2"
    assert asked([{"prompt": "Who built the mill?"}])["predictions"] != first[:1]
    assert site.mlflow("delete", *named, **environment).returncode == 0
    assert "coding" not in names(client)
