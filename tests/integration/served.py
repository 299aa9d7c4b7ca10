"""A real MLflow server with tiny versions in it, and a real endpoint over them."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient

from mlflow_llamaduo.files import folder_digest
from mlflow_llamaduo.pyfunc_model import Package
from tests.integration import tiny
from tools.servers import free_port, started

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Registry:
    """An MLflow server's registry, and where the base and the adapters of its versions are made."""

    uri: str
    folder: Path
    base: Path
    experiment: str = "0"

    @property
    def client(self) -> MlflowClient:
        """MLflow's own."""
        return MlflowClient(self.uri, self.uri)

    def publish(self, task: str, seed: int, *, base: Path | None = None, broken: bool = False) -> int:
        """A version of a task's model with an adapter of its own; its number."""
        content = self.folder / f"{task}-{seed}-{broken}"
        base = base or self.base
        tiny.adapted(base, seed).save_pretrained(str(content / "adapter"), safe_serialization=True)
        tiny.tokenizer().save_pretrained(str(content / "adapter"))
        if broken:
            (content / "adapter/adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
        package = Package(task, str(base), folder_digest(base), 8, 0.0, 1.0)
        (content / "package.json").write_text(json.dumps(asdict(package)))
        (content / "evidence.json").write_text("{}")
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self.uri)
        try:
            with mlflow.start_run(experiment_id=self.experiment):
                logged = mlflow.pyfunc.log_model(
                    name=task,
                    loader_module="mlflow_llamaduo.pyfunc_model",
                    data_path=str(content),
                    registered_model_name=f"llamaduo-{task}",
                    pip_requirements=[],
                )
        finally:
            mlflow.set_tracking_uri(before)
        number = int(logged.registered_model_version)
        self.client.set_model_version_tag(f"llamaduo-{task}", str(number), "llamaduo.decision", "passed")
        shutil.rmtree(content)
        return number

    def alias(self, task: str, alias: str, number: int) -> None:
        """Set an alias, as a click in MLflow's UI does."""
        self.client.set_registered_model_alias(f"llamaduo-{task}", alias, str(number))


@contextmanager
def registry(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """`mlflow server` on a folder; it may be started there again."""
    command = [str(BIN / "mlflow"), "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with started(command, folder, environment(folder), f"http://127.0.0.1:{port}/health") as process:
        yield process


def environment(folder: Path, **more: str) -> dict[str, str]:
    """No MLflow variables from outside, and everything that is written in the folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LLAMADUO_", "RAY_"))}
    own = {
        "LLAMADUO_PROJECTS": str(ROOT / "projects"),
        "LLAMADUO_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
    }
    return {**kept, **own, **more}


@contextmanager
def endpoint(registry: Registry, *arguments: str) -> Iterator[str]:
    """`llamaduo serve` over a registry: its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(BIN / "llamaduo"), "serve", "--port", str(port), *arguments]
    variables = environment(registry.folder, MLFLOW_TRACKING_URI=registry.uri)
    with started(command, registry.folder, variables, f"{url}/healthz"):
        yield url


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def text(self) -> str:
        """What the model said."""
        return str(self.body["choices"][0]["message"]["content"])

    @property
    def version(self) -> int:
        """Which version says to have answered."""
        return int(self.headers["x-llamaduo-version"])


def ask(url: str, model: str, prompt: str = "Who built the mill?", **more: Any) -> Answer:
    """One question, greedy unless told otherwise."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, **more}
    return post(f"{url}/v1/chat/completions", json.dumps(body).encode())


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    """Any body."""
    request = urllib.request.Request(url, body, {"content-type": "application/json", **(headers or {})})
    return _answer(request)


def get(url: str) -> Answer:
    """Any path."""
    return _answer(urllib.request.Request(url))


def _answer(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            return Answer(found.status, {k.lower(): v for k, v in found.headers.items()}, _body(found.read()))
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, _body(error.read()))


def _body(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
