"""A registry with versions on the real small model, and servers over it, for the benchmarks of serving."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.pyfunc_model import Package
from tools.servers import free_port, started

ROOT = Path(__file__).parents[1]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
RANK = 16


def versions(folder: Path, count: int) -> list[Path]:
    """Publish versions of closed_qa with made-up adapters, the first as champion; the adapters' folders."""
    import mlflow
    from mlflow import MlflowClient

    from mlflow_llamaduo.registry import SIGNATURE

    base = resolve(BASE)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    adapters = []
    for seed in range(count):
        content = folder / f"version-{seed}"
        adapters.append(_adapter(base.path, content / "adapter", seed))
        package = Package("closed_qa", base.name, base.digest, 48, 0.8, 1.0)
        (content / "package.json").write_text(json.dumps(asdict(package)))
        (content / "evidence.json").write_text("{}")
        with mlflow.start_run(experiment_id="0"):
            logged = mlflow.pyfunc.log_model(
                name="closed_qa",
                loader_module="mlflow_llamaduo.pyfunc_model",
                data_path=str(content),
                registered_model_name="llamaduo-closed_qa",
                signature=SIGNATURE,
                pip_requirements=[],
            )
        number = str(logged.registered_model_version)
        MlflowClient().set_model_version_tag("llamaduo-closed_qa", number, "llamaduo.decision", "passed")
    MlflowClient().set_registered_model_alias("llamaduo-closed_qa", "champion", "1")
    return adapters


def _adapter(base: Path, folder: Path, seed: int) -> Path:
    """An adapter of random weights: small, so that answers stay words."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.002)
    model.save_pretrained(folder, safe_serialization=True)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@contextmanager
def server(command: list[str], folder: Path, url: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A server with all cores and the store and the projects of the benchmark, while it answers."""
    cores = str(os.cpu_count() or 1)
    environment = {**os.environ, "OMP_NUM_THREADS": cores, "TOKENIZERS_PARALLELISM": "false", **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    environment.setdefault("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    with started(command, folder, environment, url) as process:
        yield process


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its address, and the process that was started."""

    url: str
    process: "subprocess.Popen[bytes]"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It gets no processor for the length of the block: what runs beside it is measured as if it were alone."""
        tree = [*(top := psutil.Process(self.process.pid)).children(recursive=True), top]
        for process in tree:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(tree):
                process.resume()


@contextmanager
def ours(folder: Path, python: str = sys.executable, **settings: object) -> Iterator[Served]:
    """`llamaduo serve` with settings of `serving`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [python, "-m", "mlflow_llamaduo", "serve", "--task", "closed_qa", "--port", str(port)]
    command += [part for key, value in settings.items() for part in ("--set", f"serving.{key}={value}")]
    home = {"LLAMADUO_HOME": str(folder / "home")}
    with server(command, folder, f"{url}/healthz", **home) as process:
        yield Served(url, process)


def clear(folder: Path) -> None:
    """Nothing stays of it."""
    shutil.rmtree(folder, ignore_errors=True)
