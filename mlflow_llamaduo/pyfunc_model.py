"""What a version of the registered model holds, and how MLflow opens it.

    adapter/        LoRA weights (safetensors), tokenizer, chat template
    package.json    the base model's name and digest, how the gate's answers were sampled
    evidence.json   scorecard, decision, lineage

The base is named, not copied (an 8B base is 16 GB, its adapter 0.2): it comes from the same places as in training,
and a base with another digest is refused. There is no pickle in it; `mlflow.pyfunc.load_model` finds
`_load_pyfunc` by the name of this module.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.parity import PROBES_FILE
from mlflow_llamaduo.core.records import Adapter, digest
from mlflow_llamaduo.errors import BaseModelError, DataError
from mlflow_llamaduo.files import folder_atomic, folder_digest
from mlflow_llamaduo.quiet import hush

if TYPE_CHECKING:
    from mlflow_llamaduo.inference.transformers_engine import TransformersEngine

BATCH = 8


@dataclass(frozen=True, slots=True)
class Package:
    """`package.json`: lengths in tokens. `merged`: the adapter is in the base's own weights, as in an export."""

    task: str
    base_model: str
    base_digest: str
    max_new_tokens: int
    temperature: float
    top_p: float
    merged: bool = False


def package(project: Project, adapter: Adapter) -> Package:
    """What stands in `package.json` beside an adapter of the project."""
    settings = project.inference
    return Package(
        task=project.task,
        base_model=adapter.base_model,
        base_digest=adapter.base_digest,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


def pack(folder: Path, *, adapter: Path, package: Package) -> None:
    """Fill `folder`, which appears whole or not at all, with what a version holds.

    Its evidence is there once it is registered. The worker's probes stay behind: they are made of dev prompts, which
    are not to travel to where the version is served.
    """
    with folder_atomic(folder) as part:
        shutil.copytree(adapter, part / "adapter", ignore=shutil.ignore_patterns(PROBES_FILE))
        (part / "package.json").write_text(json.dumps(asdict(package), indent=2))


def content_digest(folder: Path) -> str:
    """The digest of a packed version's adapter and package, its evidence aside; `nothing` where one is missing."""
    if not (folder / "adapter").is_dir() or not (folder / "package.json").is_file():
        return "nothing"
    return digest(folder_digest(folder / "adapter"), (folder / "package.json").read_text())


def unpack(folder: Path) -> "tuple[Package, TransformersEngine]":
    """Load a version: its base with its adapter.

    Raises:
        BaseModelError: the base is not to be had, or is not the one that the adapter was trained on.
    """
    hush()
    from mlflow_llamaduo.inference.transformers_engine import TransformersEngine

    package = read_package(folder)
    return package, TransformersEngine(str(base_of(package)), str(folder / "adapter"))


def read_package(folder: Path) -> Package:
    """`package.json` of a version's files."""
    return Package(**json.loads((folder / "package.json").read_text()))


def base_of(package: Package) -> Path:
    """The folder of the base that a version's adapter was trained on.

    Raises:
        BaseModelError: it is not to be had, or has other files.
    """
    base = resolve(package.base_model)
    if base.digest != package.base_digest:
        raise BaseModelError(
            f"{base.path} is not the {package.base_model} that this adapter was trained on (digest {base.digest}, "
            f"not {package.base_digest}): remove that folder and load again, or put the original there"
        )
    return base.path


class LocalModel:
    """The pyfunc: prompts in, answers out."""

    def __init__(self, folder: Path) -> None:
        self._package, self._engine = unpack(folder)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """One answer a row.

        Args:
            model_input: a string, a list of strings, or rows with a column `prompt`.
            params: `temperature` (0 is greedy, the default here), `max_new_tokens` (the package's), `seed`.
        """
        from mlflow_llamaduo.inference.engine import Sampling

        prompts = _prompts(model_input)
        given = {name: value for name, value in (params or {}).items() if value is not None}
        sampling = Sampling(
            max_new_tokens=int(given.get("max_new_tokens", self._package.max_new_tokens)),
            temperature=float(given.get("temperature", 0.0)),
            top_p=float(given.get("top_p", self._package.top_p)),
            seed=given.get("seed"),
        )
        answers: list[str] = []
        for start in range(0, len(prompts), BATCH):
            chats = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + BATCH]]
            answers += [row[0].text for row in self._engine.generate(chats, sampling)]
        return answers


def _prompts(model_input: Any) -> list[str]:
    if isinstance(model_input, str):
        return [model_input]
    if isinstance(model_input, pd.DataFrame):
        column = "prompt" if "prompt" in model_input.columns else model_input.columns[0]
        return [str(prompt) for prompt in model_input[column]]
    if isinstance(model_input, list) and all(isinstance(prompt, str) for prompt in model_input):
        return model_input
    raise DataError(f'expected a prompt, a list of prompts or a column "prompt", not {type(model_input).__name__}')


def _load_pyfunc(path: str) -> LocalModel:
    return LocalModel(Path(path))
