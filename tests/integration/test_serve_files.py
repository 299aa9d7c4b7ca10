"""serve/*.yaml: what an operator edits is what Ray Serve and the code understand."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from mlflow_llamaduo.config import Canary, Shadow, load
from mlflow_llamaduo.serving.run import ServeArgs
from tests.integration.served import ROOT, Registry, answers, ask, environment, free_port, registry, started
from tests.integration.tiny import base

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


def test_serve_run_starts_the_local_one_and_its_canary_is_the_files(tmp_path: Path) -> None:
    port, mlflow_port = free_port(), free_port()
    made = Registry(f"http://127.0.0.1:{mlflow_port}", tmp_path, base(tmp_path / "base"))
    tree = yaml.safe_load((ROOT / "serve/local.yaml").read_text())
    tree["http_options"]["port"] = port
    (application,) = tree["applications"]
    application["deployments"][0]["user_config"]["canary"]["closed_qa"]["percent"] = 100
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(tree))
    with registry(tmp_path, mlflow_port):
        for seed in (1, 2):
            made.publish("closed_qa", seed)
        made.alias("closed_qa", "champion", 1)
        made.alias("closed_qa", "challenger", 2)
        url = f"http://127.0.0.1:{port}"
        command = ["serve", "run", str(file)]
        variables = environment(tmp_path, MLFLOW_TRACKING_URI=made.uri)
        with started(command, tmp_path, variables, f"{url}/healthz"):
            assert ask(url, "closed_qa").headers["x-llamaduo-route"] == "canary"
            assert ask(url, "closed_qa@1").version == 1
        assert not answers(f"{url}/healthz")
