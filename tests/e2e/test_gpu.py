"""What only a GPU does. Skipped without one; fails without one where LLAMADUO_REQUIRE=gpu."""

from dataclasses import asdict
from pathlib import Path

import pytest

from mlflow_llamaduo.base_models import BaseModelFolder, resolve
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import FineTune, Inference
from mlflow_llamaduo.core.parity import PROBES, probe_order
from mlflow_llamaduo.core.records import Adapter, PairSet
from mlflow_llamaduo.coverage import read_pairs
from mlflow_llamaduo.finetune import TrainWorkers
from mlflow_llamaduo.inference import EnginePool
from mlflow_llamaduo.parity import check
from mlflow_llamaduo.pyfunc_model import Package, pack
from tests.e2e.conftest import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.e2e]

RECIPE = FineTune(epochs=1, lora_rank=8, lora_alpha=16, lora_dropout=0.0)


def pairs(start: int, end: int) -> PairSet:
    return PairSet(read_pairs(ROOT / "projects/closed_qa/coverage.jsonl").pairs[start:end])


@pytest.fixture
def base() -> BaseModelFolder:
    return resolve("HuggingFaceTB/SmolLM2-135M-Instruct")


def trained(base: BaseModelFolder, recipe: FineTune, folder: Path) -> Adapter:
    workers = TrainWorkers(base, recipe, name="gpu", folder=folder / "training", beside=1)
    adapter = workers.finetune(pairs(0, 16), pairs(16, 20), key="gpu", target=folder / "adapter", done=lambda _: None)
    workers.close()
    return adapter


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_qlora_in_bf16_trains_is_at_parity_and_answers_on_a_gpu(
    base: BaseModelFolder, tmp_path: Path, engine: str
) -> None:
    if engine == "vllm":
        pytest.importorskip("vllm")
    with cluster():
        adapter = trained(base, RECIPE, tmp_path)
        settings = Inference.model_validate({"engine": engine, "responses_per_prompt": 2, "max_new_tokens": 16})
        pool = EnginePool(base, settings, lora_rank=8)
        pack(
            tmp_path / "version",
            adapter=Path(adapter.path),
            package=Package("test", base.name, base.digest, 16, 0.8, 1.0),
        )
        chats = [[asdict(message) for message in pair.prompt] for pair in probe_order(pairs(16, 20))[:PROBES]]
        found = check(tmp_path / "version", adapter, chats, pool.run).parity
        responses = pool.answer(pairs(20, 22), adapter, done=lambda _: None)
        pool.release()
    assert 0 < adapter.eval_loss < 10
    assert (found.served.dtype, found.trained.quantization) == ("bfloat16", "nf4")
    assert len(responses) == 4


def test_two_gpus_reach_the_loss_of_one(base: BaseModelFolder, tmp_path: Path) -> None:
    """In bf16 sums differ more than in float32: 2 %."""
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    with cluster():
        one = trained(base, RECIPE, tmp_path / "one")
        two = trained(base, RECIPE.model_copy(update={"workers": 2, "gradient_accumulation": 1}), tmp_path / "two")
    assert two.eval_loss == pytest.approx(one.eval_loss, rel=0.02)
