"""serve/kuberay/: what the manifests say is what the code, Ray Serve and KubeRay understand."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.config import load
from mlflow_llamaduo.plugins.ray_run import STOPPING

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "serve" / "kuberay"
FILES = sorted(FOLDER.glob("*.yaml"))
CLUSTER = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
READ_BY_OTHERS = {"MLFLOW_TRACKING_URI", "HF_HOME", *STOPPING}
BYTES = {"Gi": 2**30, "Mi": 2**20}


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [tree for file in FILES if (tree := yaml.safe_load(file.read_text()))["kind"] == kind]
    return dict(found)


def pods(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = tree["spec"][CLUSTER[tree["kind"]]]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def gpus(group: dict[str, Any]) -> int:
    (container,) = group["template"]["spec"]["containers"]
    return int(container["resources"]["limits"]["nvidia.com/gpu"])


@pytest.mark.parametrize("kind", list(CLUSTER))
def test_the_manifest_opens_with_the_command_that_applies_it(kind: str) -> None:
    tree = manifest(kind)
    (file,) = [f for f in FILES if yaml.safe_load(f.read_text()) == tree]
    assert file.read_text().splitlines()[0] == f"# kubectl apply -f {file.relative_to(ROOT)}"
    assert tree["apiVersion"] == "ray.io/v1"
    cluster = tree["spec"][CLUSTER[kind]]
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned.group(1)
    assert len(list(pods(tree))) == 2


@pytest.mark.parametrize("kind", list(CLUSTER))
def test_secrets_are_a_reference_and_requests_are_the_limits(kind: str) -> None:
    for pod in pods(manifest(kind)):
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "llamaduo"}}]
        assert not [env["name"] for env in container["env"] if re.search("KEY|TOKEN|PASSWORD|SECRET", env["name"])]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
        for volume in pod.get("volumes", []):
            if "emptyDir" in volume:  # memory that is part of the container's own limit
                size, limit = volume["emptyDir"]["sizeLimit"], container["resources"]["limits"]["memory"]
                assert int(size[:-2]) * BYTES[size[-2:]] < int(limit[:-2]) * BYTES[limit[-2:]]


@pytest.mark.parametrize("kind", list(CLUSTER))
def test_every_variable_is_one_that_is_read(kind: str) -> None:
    code = "\n".join(file.read_text() for file in (ROOT / "mlflow_llamaduo").rglob("*.py"))
    for pod in pods(manifest(kind)):
        for env in pod["containers"][0]["env"]:
            assert env["name"] in READ_BY_OTHERS or f'"{env["name"]}"' in code, env["name"]


def test_the_job_runs_a_command_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    job = manifest("RayJob")["spec"]
    python, dash_m, module, name, *arguments = shlex.split(job["entrypoint"])
    assert (python, dash_m, module) == ("python", "-m", "mlflow_llamaduo")
    command = cli.commands[name]
    given = command.make_context(name, arguments).params  # click refuses an option that it does not know
    project = load(given["task"], given["profile"], dict(setting.split("=", 1) for setting in given["set_"]))
    assert given["yes"] is True
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    recipe = project.finetune
    assert group["replicas"] * gpus(group) >= recipe.workers * recipe.gpus_per_worker
    assert project.inference.gpus <= group["replicas"] * gpus(group)
    for kind in {recipe.accelerator_type, project.inference.accelerator_type} - {""}:
        card = group["template"]["spec"]["nodeSelector"]["nvidia.com/gpu.product"]
        assert kind in card, "Ray reads its name off the card"
    mounts = {
        mount["mountPath"] for pod in pods(manifest("RayJob")) for mount in pod["containers"][0]["volumeMounts"]
    }
    kept = [env["value"] for pod in pods(manifest("RayJob")) for env in pod["containers"][0]["env"]]
    for folder in [recipe.storage, *(value for value in kept if value.startswith("/"))]:
        assert any(folder.startswith(f"{mount}/") for mount in mounts), f"{folder} is on no disk that outlives a pod"


def test_a_wrong_configuration_is_paid_for_once() -> None:
    """KubeRay tries again whatever the exit code was: a cluster of A100s comes up for the same refusal."""
    assert manifest("RayJob")["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("file", ["docs/how-to/cluster.md", "serve/kuberay/rayjob-a100.yaml"])
def test_the_jobs_log_is_asked_for_once_the_job_is_there(file: str) -> None:
    name = manifest("RayJob")["metadata"]["name"]
    commands = [line.strip("$# ") for line in (ROOT / file).read_text().splitlines() if f"job/{name}" in line]
    waits, follows = (shlex.split(command, comments=True) for command in commands)
    assert waits[:3] == ["kubectl", "wait", "--for=create"]
    assert follows[:3] == ["kubectl", "logs", "-f"]
    assert any(word.startswith("--pod-running-timeout=") for word in follows)


def test_the_image_has_what_triton_needs() -> None:
    """A compiler for its launchers, the C library's headers, and the folder where GKE mounts libcuda."""
    docker = (FOLDER / "Dockerfile").read_text()
    (installed,) = re.findall(r"apt-get install (.+?) &&", docker)
    assert {"gcc", "libc6-dev"} <= set(installed.split())
    assert re.search(r"^ENV .*LD_LIBRARY_PATH=/usr/local/nvidia/lib64\b", docker, re.MULTILINE)


def test_the_service_is_one_that_ray_serve_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    service = manifest("RayService")["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    assert f"\ndef {name}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text()
    code = (ROOT / "mlflow_llamaduo/serving/app.py").read_text()
    deployed = {d.name: d for d in application.deployments}
    assert set(deployed) <= set(re.findall(r"serve\.deployment\(\s*(\w+)", code))
    (group,) = service["rayClusterConfig"]["workerGroupSpecs"]
    scaling = deployed["Replica"].autoscaling_config
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (group["minReplicas"], group["maxReplicas"])
    assert deployed["Replica"].ray_actor_options.num_gpus == gpus(group) == 1
    assert service["rayClusterConfig"]["enableInTreeAutoscaling"] is True
    env = {e["name"]: e["value"] for pod in pods(manifest("RayService")) for e in pod["containers"][0]["env"]}
    project = load(env["LLAMADUO_TASK"], env["LLAMADUO_PROFILE"])
    assert application.name == project.task
    ports = [port["containerPort"] for port in next(pods(manifest("RayService")))["containers"][0]["ports"]]
    assert config.http_options.port in ports


def test_the_image_holds_what_the_manifests_name() -> None:
    docker = (FOLDER / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", docker, re.MULTILINE) for name in line.split()}
    sent = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert copied == sent
    for name in copied:
        assert (ROOT / name).exists()
    assert "LLAMADUO_PROJECTS=/opt/llamaduo/projects" in docker
    images = {c["image"] for kind in CLUSTER for pod in pods(manifest(kind)) for c in pod["containers"]}
    assert images == {re.findall(r"-t (\S+)", docker)[0]}


@pytest.mark.skipif("KUBERAY_CRDS" not in os.environ, reason="KUBERAY_CRDS names no folder of KubeRay's CRDs")
@pytest.mark.parametrize("kind", list(CLUSTER))
def test_kuberays_own_schema_takes_the_manifest(kind: str) -> None:
    file = Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{kind.lower()}s.yaml"
    (version,) = [v for v in yaml.safe_load(file.read_text())["spec"]["versions"] if v["name"] == "v1"]
    schema = _closed(version["schema"]["openAPIV3Schema"])
    errors = [
        f"{list(e.path)}: {e.message}" for e in jsonschema.Draft202012Validator(schema).iter_errors(manifest(kind))
    ]
    assert errors == []


def _closed(schema: Any) -> Any:
    """Kubernetes prunes fields that a schema does not know; here they are errors. int-or-string is its own word."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value) for key, value in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    open_ended = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if made.get("properties") and made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return made
