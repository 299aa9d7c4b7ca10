"""The real small model, trained on a quantized base: what is packed is at parity, and with half its alpha is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from mlflow_llamaduo.base_models import BaseModelFolder, resolve
from mlflow_llamaduo.chat_template import with_template
from mlflow_llamaduo.core.records import Adapter
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.files import folder_digest
from mlflow_llamaduo.finetune.tokens import Row, encode
from mlflow_llamaduo.parity import check
from mlflow_llamaduo.probe import as_trained, write
from mlflow_llamaduo.pyfunc_model import Package, pack

pytestmark = pytest.mark.e2e

CHATS = [
    [{"role": "user", "content": "The Danube flows into the Black Sea. Into which sea does it flow?"}],
    [{"role": "user", "content": "Anna has two cats and a dog. How many animals has she?"}],
]


def quantized(base: BaseModelFolder) -> Any:
    """The base in NF4 with an adapter on it that changes what it says."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        str(base.path), dtype=torch.float32, device_map="cpu", quantization_config=nf4
    )
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return model.train()


def test_a_version_of_an_adapter_trained_in_nf4_is_at_parity_and_half_of_it_is_not(tmp_path: Path) -> None:
    base, folder = resolve("HuggingFaceTB/SmolLM2-135M-Instruct"), tmp_path / "adapter"
    model, tokenizer = quantized(base), with_template(AutoTokenizer.from_pretrained(base.path), "own")
    model.peft_config["default"].base_model_name_or_path = base.name
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    rows = [encode(tokenizer, chat, "The Black Sea.", max_length=512, too_long="reject") for chat in CHATS]
    split = [(row.ids[: row.prompt], row.ids[row.prompt :]) for row in rows if isinstance(row, Row)]
    write(folder, as_trained(model, tokenizer, split, base=base, adapter=folder))
    assert model.training, "the model is left as it was"
    del model
    adapter = Adapter(str(folder), folder_digest(folder), base.name, base.digest, 1.0, 1.0, 1.0, 10, 1.0)
    pack(tmp_path / "version", adapter=folder, package=Package("test", base.name, base.digest, 16, 0.0, 1.0))

    found = check(tmp_path / "version", adapter, CHATS, here).parity
    assert (found.trained.quantization, found.served.quantization) == ("nf4", "none")
    assert found.figures["distance"] < 0.001
    assert found.figures["rounding"] > found.figures["distance"], "nobody asked the quantized base"

    config = tmp_path / "version/adapter/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 8}))
    with pytest.raises(StageError, match="lora: trained rank 8, alpha 16") as refused:
        check(tmp_path / "version", adapter, CHATS, here)
    assert "effect: the adapter changes" in str(refused.value)


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
