import json
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest
import yaml
from httpx import ConnectError

from mlflow_llamaduo.base_models.shape import find_shape, known_shapes
from mlflow_llamaduo.core.shape import shape_of
from mlflow_llamaduo.errors import BaseModelError

PROFILES = Path(__file__).parents[2] / "projects/profiles"
PUBLISHED = {
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-7b": 8_537_680_896,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
}
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 10,
    "max_position_embeddings": 64,
}


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the model hub is out of reach."""

    def unreachable(*_: Any, **__: Any) -> NoReturn:
        raise ConnectError("no route to the hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMADUO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    return tmp_path


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_a_model_has_as_many_parameters_as_was_published(name: str, parameters: int) -> None:
    assert find_shape(name).parameters == parameters


def test_the_base_model_of_every_profile_is_known_without_a_network() -> None:
    named = {yaml.safe_load(file.read_text())["base_model"] for file in PROFILES.rglob("*.yaml")}

    assert len(named) >= 8
    assert named <= set(known_shapes())


def test_parameters_are_counted_matrix_by_matrix() -> None:
    shape = shape_of("tiny", CONFIG)
    layer = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16

    assert shape.linear_parameters == 2 * layer
    assert shape.parameters == 2 * (layer + 2 * 8) + 8 + 2 * 10 * 8
    assert shape.adapter_parameters(3) == 2 * 3 * (16 + 12 + 12 + 16 + 3 * 24)


def test_a_folder_of_that_name_comes_before_what_is_known(no_hub: Path) -> None:
    folder = no_hub / "google/gemma-2b"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))

    assert find_shape("google/gemma-2b").layers == 2


def test_what_the_hub_said_is_kept(no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_hub / "fetched.json").write_text(json.dumps(CONFIG))
    asked: list[tuple[str, str]] = []

    def download(name: str, file: str, **_: Any) -> str:
        asked.append((name, file))
        return str(no_hub / "fetched.json")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    assert find_shape("some/model") == find_shape("some/model")
    assert asked == [("some/model", "config.json")]


def test_a_model_that_is_nowhere_is_one_line() -> None:
    with pytest.raises(BaseModelError, match=r"config\.json of some/model is not here and not on the model hub"):
        find_shape("some/model")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "mamba"}, "family mamba"),
        ({"hidden_size": None}, "cannot be read as sizes"),
        ({"num_attention_heads": 0}, "cannot be read as sizes"),
        ({"vocab_size": "many"}, "cannot be read as sizes"),
    ],
)
def test_a_config_that_is_not_understood_is_said(change: dict[str, Any], told: str) -> None:
    with pytest.raises(BaseModelError, match=told):
        shape_of("odd", {**CONFIG, **change})


def test_a_model_within_a_model_of_images_too_is_found() -> None:
    assert shape_of("images", {"model_type": "gemma3", "text_config": CONFIG}).layers == 2


def test_windowed_layers_keep_their_window_only() -> None:
    whole = shape_of("mistral", {**CONFIG, "model_type": "mistral"})
    near = shape_of("mistral", {**CONFIG, "model_type": "mistral", "sliding_window": 10})
    mixed = shape_of("gemma", {**CONFIG, "model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window": 10})

    assert (whole.kept(40), near.kept(40), near.kept(5)) == (2 * 4 * 40, 2 * 4 * 10, 2 * 4 * 5)
    assert mixed.kept(40) == 4 * (5 * 10 + 40)
