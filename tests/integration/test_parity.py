"""What is packed must answer as it was trained: the honest one passes, and every planted fault is named."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlflow_llamaduo import parity
from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.core.records import Adapter
from mlflow_llamaduo.errors import BaseModelError, StageError
from mlflow_llamaduo.files import folder_digest
from mlflow_llamaduo.finetune.tokens import Row, encode
from mlflow_llamaduo.parity import check
from mlflow_llamaduo.probe import as_trained, write
from mlflow_llamaduo.pyfunc_model import Package, pack, unpack
from tests.integration import tiny

CHATS = [
    [{"role": "user", "content": text}] for text in ("Which sea, then?", "Who came late?", "Name a town.", "Hm?")
]


@dataclass
class Packed:
    """A trained adapter, and the version that was packed of it."""

    folder: Path
    adapter: Adapter
    chats: list[list[dict[str, str]]]

    def check(self) -> parity.Checked:
        return check(self.folder, self.adapter, self.chats, lambda function, *arguments: function(*arguments))

    def refusal(self, error: type[StageError] = StageError) -> str:
        with pytest.raises(error) as caught:
            self.check()
        return str(caught.value)

    def edit(self, file: str, **changes: Any) -> None:
        """Change keys of a JSON file of the version."""
        path = self.folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def train(folder: Path, base: Path, seed: int = 1) -> Adapter:
    """What the worker does once the best adapter is loaded."""
    model, tokenizer, found = tiny.adapted(base, seed), tiny.tokenizer(), resolve(str(base))
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    rows = [encode(tokenizer, chat, "Arn.", max_length=256, too_long="reject") for chat in CHATS]
    split = [(row.ids[: row.prompt], row.ids[row.prompt :]) for row in rows if isinstance(row, Row)]
    write(folder, as_trained(model, tokenizer, split, base=found, adapter=folder))
    return Adapter(str(folder), folder_digest(folder), found.name, found.digest, 1.0, 1.0, 1.0, 10, 1.0)


def packed(folder: Path, adapter: Adapter) -> Packed:
    package = Package("test", adapter.base_model, adapter.base_digest, 16, 0.0, 1.0)
    pack(folder, adapter=Path(adapter.path), package=package)
    return Packed(folder, adapter, CHATS)


@pytest.fixture
def version(tmp_path: Path) -> Packed:
    return packed(tmp_path / "version", train(tmp_path / "adapter", tiny.base(tmp_path / "base")))


def test_the_honest_version_passes_and_says_how_near_it_is(version: Packed) -> None:
    found = version.check()
    assert found.parity.differences == ()
    assert found.parity.probes == 4
    assert found.parity.figures["distance"] < 1e-4
    assert found.parity.figures["answers"] == 1
    assert found.parity.figures["active"] > 0.01
    assert str(found.parity).startswith("passed: distance")


def test_dev_prompts_do_not_travel_with_the_version(version: Packed) -> None:
    assert not list(version.folder.rglob("probes.json"))


def test_another_chat_template_is_named(version: Packed) -> None:
    file = version.folder / "adapter/chat_template.jinja"
    file.write_text("<|im_start|>system\nBe brief.<|im_end|>\n" + file.read_text())
    said = version.refusal()
    assert "chat template: trained" in said
    assert "prompts: 4 of 4 are read as other tokens, the first from token 1 on" in said


def test_a_version_with_another_number_format_is_named(version: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, lambda engine: engine.model.to(torch.bfloat16))
    assert "dtype: trained float32, served bfloat16" in version.refusal()


def test_another_adapter_at_the_path_is_named(version: Packed, tmp_path: Path) -> None:
    other = train(tmp_path / "other", tmp_path / "base", seed=2)
    (version.folder / "adapter/adapter_model.safetensors").write_bytes(
        (Path(other.path) / "adapter_model.safetensors").read_bytes()
    )
    said = version.refusal()
    assert "weights: trained" in said
    assert "effect: the adapter changes" in said


def test_another_adapter_where_the_trained_one_was_is_named(version: Packed, tmp_path: Path) -> None:
    """Both sides are of another alignment and agree with each other: only the digest tells."""
    other = train(tmp_path / "other", tmp_path / "base", seed=2)
    version = packed(tmp_path / "second", replace(version.adapter, path=other.path))
    assert f"adapter path: {other.path} holds {other.digest}, not the adapter" in version.refusal()


def test_a_bare_base_that_is_served_in_silence_is_named(version: Packed) -> None:
    """An adapter is loaded, and changes nothing."""
    file = version.folder / "adapter/adapter_model.safetensors"
    save_file({name: weight * ("lora_A" in name) for name, weight in load_file(file).items()}, file)
    said = version.refusal()
    assert "active: the adapter changes the answers' first tokens by 0.0000" in said
    assert "effect: the adapter changes 0.00 times what it changed when trained" in said


def test_weights_that_do_not_fit_the_model_are_named(version: Packed) -> None:
    file = version.folder / "adapter/adapter_model.safetensors"
    save_file({name.replace("model.layers", "model.blocks"): w for name, w in load_file(file).items()}, file)
    assert "does not fit" in (said := version.refusal())
    assert "the adapter is not of this base, which has no linear layer model.blocks" in said


def test_a_base_without_its_adapter_is_named(version: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, lambda engine: engine.use(None))
    said = version.refusal()
    assert "lora: trained rank 4, alpha 8, factor 2" in said
    assert "served no adapter" in said
    assert "active:" in said


def test_a_version_without_an_adapter_is_named(version: Packed) -> None:
    (version.folder / "adapter/adapter_model.safetensors").unlink()
    assert "the packed model has no adapter" in version.refusal()


def test_another_alpha_is_named(version: Packed) -> None:
    version.edit("adapter/adapter_config.json", lora_alpha=4)
    said = version.refusal()
    assert "lora: trained rank 4, alpha 8, factor 2 in 14 layers" in said
    assert "served rank 4, alpha 4, factor 1 in 14 layers" in said
    assert "effect:" in said


def test_another_tokenizer_is_named(version: Packed) -> None:
    tiny.tokenizer("zyxwvutsrqponmlkjihgfedcbaABCDEFGHIJKLMNOPQRSTUVWXYZ ?.,\n").save_pretrained(
        str(version.folder / "adapter")
    )
    said = version.refusal()
    assert "tokenizer: trained" in said
    assert "prompts: 4 of 4" in said


def test_another_end_token_is_named(version: Packed) -> None:
    version.edit("adapter/tokenizer_config.json", eos_token="<|pad|>")
    assert "end token: trained 1, served 2" in version.refusal()


def test_a_base_with_other_files_is_named(version: Packed, tmp_path: Path) -> None:
    tiny.base(tmp_path / "base", seed=5)
    assert "is not the" in version.refusal(BaseModelError)


def test_another_base_is_named(version: Packed, tmp_path: Path) -> None:
    other = resolve(str(tiny.base(tmp_path / "base2", seed=5)))
    version.edit("package.json", base_model=other.name, base_digest=other.digest)
    said = version.refusal()
    assert f"base model: trained {tmp_path / 'base'}, served {other.name}" in said
    assert f"served {other.digest}" in said
    assert "distance: the first tokens' probabilities differ" in said


def test_an_adapter_without_probes_is_refused_with_the_way_out(version: Packed, tmp_path: Path) -> None:
    (tmp_path / "adapter/probes.json").unlink()
    version.adapter = replace(version.adapter, digest=folder_digest(tmp_path / "adapter"))
    assert "remove the folder and its .json, and run again" in version.refusal()


def loaded(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object]) -> None:
    """Plant a fault in what serving loads."""

    def unpacked(folder: Path) -> Any:
        package, engine = unpack(folder)
        change(engine)
        return package, engine

    monkeypatch.setattr(parity, "unpack", unpacked)
