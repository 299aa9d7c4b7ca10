"""Several adapters on one base at once, held against PEFT with one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.inference.adapters import Adapters
from tests.integration import tiny

IDS = torch.arange(3, 27).view(4, 6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("base"))


def loaded(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32).eval()


def saved(base: Path, folder: Path, seed: int, **changed: Any) -> Path:
    """An adapter that changes what the base says."""
    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **changed}
    config = LoraConfig(**given, task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(loaded(base), config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of several ranks, targets and scalings."""
    place = tmp_path_factory.mktemp("adapters")
    return [
        saved(base, place / "four", 1),
        saved(base, place / "two", 2, r=2, lora_alpha=2),
        saved(base, place / "six", 3, r=6, use_rslora=True),
        saved(base, place / "attention", 4, target_modules=["q_proj", "v_proj"]),
    ]


def theirs(base: Path, folder: Path | None, ids: torch.Tensor) -> torch.Tensor:
    model = loaded(base)
    if folder is not None:
        model = PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(ids).logits
    return logits


def ours(model: Any, adapters: Adapters, slots: list[int | None]) -> torch.Tensor:
    with torch.inference_mode(), adapters.rows(slots):
        logits: torch.Tensor = model(IDS[: len(slots)]).logits
    return logits


@pytest.mark.parametrize("slots", [[0, 1, 2, 3], [3, None, 0, 3], [2, 2, 2, 2], [None] * 4, [1, 0, None, 1]], ids=str)
def test_each_row_is_answered_with_its_own_adapter(base: Path, folders: list[Path], slots: list[int | None]) -> None:
    model = loaded(base)
    adapters = Adapters(model, slots=4)
    for slot, folder in enumerate(folders):
        adapters.load(slot, folder)
    found = ours(model, adapters, slots)
    for row, own in enumerate(slots):
        alone = theirs(base, None if own is None else folders[own], IDS[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    differ = {tuple(found[row, -1].tolist()) for row in range(4)}
    assert len(differ) == 4


def test_a_slot_takes_another_adapter_and_nothing_is_left_of_the_first(base: Path, folders: list[Path]) -> None:
    model = loaded(base)
    adapters = Adapters(model, slots=2)
    for folder in (folders[0], folders[2], folders[3], folders[1]):  # wider, fewer layers, narrower
        adapters.load(1, folder)
        alone = theirs(base, folder, IDS[:1])
        torch.testing.assert_close(ours(model, adapters, [1]), alone, atol=1e-4, rtol=1e-4)


def test_outside_the_block_the_base_is_bare(base: Path, folders: list[Path]) -> None:
    model = loaded(base)
    adapters = Adapters(model, slots=1)
    adapters.load(0, folders[0])
    ours(model, adapters, [0])
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, theirs(base, None, IDS))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_dora": True}, "use_dora True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
    ids=str,
)
def test_more_than_plain_lora_is_refused(
    base: Path, folders: list[Path], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({**json.loads((folders[0] / "adapter_config.json").read_text()), **changed})
    )
    (tmp_path / "adapter_model.safetensors").write_bytes((folders[0] / "adapter_model.safetensors").read_bytes())
    with pytest.raises(DataError, match=f"the adapter has {said}.* only plain LoRA is served"):
        Adapters(loaded(base), slots=1).load(0, tmp_path)


def test_an_adapter_of_another_base_is_refused_and_changes_nothing(
    base: Path, folders: list[Path], tmp_path: Path
) -> None:
    weights = load_file(folders[0] / "adapter_model.safetensors")
    for name, was, now, said in (
        ("names", "layers.0", "layers.9", "has no linear layer model.layers.9"),
        ("other", "lora_A", "lora_C", "not plain LoRA"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes((folders[0] / "adapter_config.json").read_bytes())
        save_file(
            {key.replace(was, now): value for key, value in weights.items()}, folder / "adapter_model.safetensors"
        )
        model = loaded(base)
        adapters = Adapters(model, slots=1)
        with pytest.raises(DataError, match=said):
            adapters.load(0, folder)
        torch.testing.assert_close(ours(model, adapters, [0]), theirs(base, None, IDS[:1]))
    with pytest.raises(FileNotFoundError, match="no adapter_model"):
        Adapters(loaded(base), slots=1).load(0, tmp_path)
