"""What only a GPU does. Skipped without one; fails without one where LLAMADUO_REQUIRE=gpu."""

from pathlib import Path

import pytest

from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import FineTune, Inference
from mlflow_llamaduo.core.records import PairSet
from mlflow_llamaduo.coverage import read_pairs
from mlflow_llamaduo.finetune import TrainWorkers
from mlflow_llamaduo.inference import EnginePool
from tests.e2e.conftest import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.e2e]


def test_qlora_in_bf16_trains_and_answers_on_a_gpu(tmp_path: Path) -> None:
    pairs = read_pairs(ROOT / "projects/closed_qa/coverage.jsonl").pairs
    base = resolve("HuggingFaceTB/SmolLM2-135M-Instruct")
    recipe = FineTune(epochs=1, lora_rank=8, lora_alpha=16)
    with cluster():
        workers = TrainWorkers(base, recipe, name="gpu", folder=tmp_path / "training", beside=1)
        adapter = workers.finetune(
            PairSet(pairs[:16]),
            PairSet(pairs[16:20]),
            key="gpu",
            target=tmp_path / "adapter",
            done=lambda _: None,
        )
        workers.close()
        pool = EnginePool(base, Inference(responses_per_prompt=2, max_new_tokens=16))
        responses = pool.answer(PairSet(pairs[20:22]), adapter, done=lambda _: None)
        pool.release()
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()
    assert 0 < adapter.eval_loss < 10
    assert len(responses) == 4
