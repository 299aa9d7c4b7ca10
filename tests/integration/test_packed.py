"""Linear layers whose weights lie as oneDNN reads them: the same answers."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from mlflow_llamaduo.inference.packed import Packed, pack
from tests.integration.tiny import base


def test_a_packed_layer_computes_the_same_for_any_number_of_rows() -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        linear = nn.Linear(96, 160, bias=bias)
        packed = Packed(linear)
        for shape in ((1, 96), (16, 96), (3, 7, 96), (130, 96)):
            rows = torch.randn(shape)
            with torch.inference_mode():
                torch.testing.assert_close(packed(rows), linear(rows), atol=1e-5, rtol=1e-5)
        assert packed.weight.shape == linear.weight.shape
        assert packed.weight.isnan().all(), "who reads the weights past the layer must see it"


def test_a_model_says_the_same_packed_and_only_float32_on_a_cpu_is(tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    ids = torch.arange(3, 40)[None]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    packed = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    pack(packed)
    layers = [module for module in packed.modules() if isinstance(module, nn.Linear)]
    assert layers
    assert all(isinstance(layer, Packed) for layer in layers)
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-4)
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    pack(half)
    assert not any(isinstance(module, Packed) for module in half.modules())
