"""serve/*.yaml: what an operator edits is what Ray Serve and the code understand."""

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from mlflow_llamaduo.config import Canary, Shadow, load
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.serving.config_file import OURS, read_file
from mlflow_llamaduo.serving.run import ServeArgs
from tests.integration.ray_head import ray_head
from tests.integration.served import ROOT, Registry, ask, environment, registry
from tests.integration.tiny import base
from tools.servers import answers, free_port, started

FILES = sorted((ROOT / "serve").glob("*.yaml"))


def of(file: Path) -> tuple[dict[str, Any], ServeArgs]:
    (application,) = yaml.safe_load(file.read_text())["applications"]
    return application, ServeArgs.model_validate(application["args"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_opens_with_its_command_and_is_one_that_ray_serve_reads(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    assert re.match(rf"# serve (run|deploy) {file.relative_to(ROOT)} ", file.read_text())
    config = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    ((application, args), (found,)) = of(file), config.applications
    assert found.import_path == "mlflow_llamaduo.serving.run:from_args"
    code = (ROOT / "mlflow_llamaduo/serving/app.py").read_text()
    assert {d.name for d in found.deployments} <= set(re.findall(r"serve\.deployment\(\s*(\w+)", code))
    for task in args.tasks:
        project = load(task, args.profile, args.overrides)
        for deployment in application["deployments"]:
            routing = deployment.get("user_config")
            if routing:
                assert Canary.model_validate(routing["canary"][task]) == project.serving.canary
                assert Shadow.model_validate(routing["shadow"][task]) == project.serving.shadow
            most = deployment.get("max_ongoing_requests")
            assert most in (None, project.serving.batch_size + project.serving.waiting)


def test_an_l4_is_asked_for_by_its_name_and_a_replica_that_goes_may_write_on() -> None:
    application, args = of(ROOT / "serve/l4.yaml")
    (replica,) = [d for d in application["deployments"] if d["name"] == "Replica"]
    assert replica["ray_actor_options"]["accelerator_type"] == "L4"
    scaling = replica["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 8)
    assert scaling["target_ongoing_requests"] < args.overrides["serving.batch_size"]
    assert replica["graceful_shutdown_timeout_s"] >= 60


@dataclass(frozen=True)
class Edited:
    """serve/local.yaml beside a registry with a champion and a challenger."""

    file: Path
    variables: dict[str, str]

    def begin(self, percent: float) -> str:
        """The file with a port that nobody listens on, not even a service that is about to end; its address."""
        port = free_port()
        tree = yaml.safe_load((ROOT / "serve/local.yaml").read_text())
        tree["http_options"]["port"] = port
        (application,) = tree["applications"]
        own = {name: value for name, value in self.variables.items() if name.startswith(("LLAMADUO_", "MLFLOW_"))}
        application["runtime_env"] = {"env_vars": own}  # what all nodes of a cluster have
        self.file.write_text(yaml.safe_dump(tree))
        self.canary(percent)
        return f"http://127.0.0.1:{port}"

    def canary(self, percent: float) -> None:
        """Edit the file."""
        tree = yaml.safe_load(self.file.read_text())
        (application,) = tree["applications"]
        application["deployments"][0]["user_config"]["canary"]["closed_qa"]["percent"] = percent
        self.file.write_text(yaml.safe_dump(tree))


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edited]:
    folder, port = tmp_path_factory.mktemp("files"), free_port()
    made = Registry(f"http://127.0.0.1:{port}", folder, base(folder / "base"))
    with registry(folder, port):
        for seed in (1, 2):
            made.publish("closed_qa", seed)
        made.alias("closed_qa", "champion", 1)
        made.alias("closed_qa", "challenger", 2)
        yield Edited(folder / "serve.yaml", environment(folder, MLFLOW_TRACKING_URI=made.uri))


@pytest.mark.parametrize("command", [["serve", "run"], ["llamaduo", "serve", "--config"]], ids=" ".join)
def test_a_file_is_served_by_rays_command_and_by_ours(edited: Edited, command: list[str]) -> None:
    url = edited.begin(100)
    with started([*command, str(edited.file)], edited.file.parent, edited.variables, f"{url}/healthz"):
        assert ask(url, "closed_qa").headers["x-llamaduo-route"] == "canary"
        assert ask(url, "closed_qa@1").version == 1
    until(lambda: not answers(f"{url}/healthz"))


def test_a_file_that_is_deployed_again_with_another_canary_changes_the_service_as_it_runs(edited: Edited) -> None:
    url = edited.begin(0)
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as short:
        with ray_head(Path(short)) as head:
            variables = {**edited.variables, **head.environment, "RAY_AUTH_MODE": "token"}
            deploy = ["serve", "deploy", str(edited.file), "--address", head.api]
            subprocess.run(deploy, env=variables, check=True, capture_output=True, timeout=120)
            until(lambda: answers(f"{url}/healthz"))
            assert ask(url, "closed_qa").headers["x-llamaduo-route"] == "champion"
            replicas = running(token := head.environment["RAY_AUTH_TOKEN_PATH"])
            assert len(replicas) == 2
            edited.canary(100)
            subprocess.run(deploy, env=variables, check=True, capture_output=True, timeout=120)
            until(lambda: ask(url, "closed_qa").headers["x-llamaduo-route"] == "canary")
            assert running(token) == replicas, "nothing was started again"


def running(token: str) -> set[int]:
    """Processes that serve in the cluster whose token lies there."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        named = " ".join(process.info["cmdline"] or [])
        with suppress(psutil.Error):
            if "ServeReplica:llamaduo" in named and process.environ().get("RAY_AUTH_TOKEN_PATH") == token:
                found.add(process.pid)
    return found


def until(seen: Callable[[], bool], within_s: float = 240.0) -> None:
    """Wait for something that comes in a while."""
    deadline = time.monotonic() + within_s
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"applications": []}, "one with import_path mlflow_llamaduo.serving.run:from_args is wanted"),
        ({"applications": [{"import_path": "os:getcwd", "name": "a"}]}, "one with import_path"),
        ({"http_options": {"port": "x"}}, "http_options.port"),
        ({"applications": [{"import_path": OURS, "name": "a", "args": {"tasks": []}}]}, "tasks: List should have"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    tree = yaml.safe_load((ROOT / "serve/local.yaml").read_text())
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({**tree, **changed}))
    with pytest.raises(ConfigError, match=re.escape(str(file))) as found:
        read_file(file)
    assert said in str(found.value)
    assert "\n" not in str(found.value)
