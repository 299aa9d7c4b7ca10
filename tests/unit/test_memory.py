import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.base_models.shape import find_shape
from mlflow_llamaduo.core.gpus import GPUS, gpu
from mlflow_llamaduo.core.memory import (
    NF4_BYTES,
    PROCESS_BYTES,
    Batch,
    Memory,
    answering,
    cache_bytes,
    kept_by_a_layer,
    training,
)
from mlflow_llamaduo.core.pace import Answers, answer_seconds, training_flops, training_seconds

LLAMA = find_shape("meta-llama/Meta-Llama-3-8B")
SMALL = find_shape("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_nf4_with_double_quantization_takes_what_its_paper_says() -> None:
    assert pytest.approx(4.127, abs=0.001) == 8 * NF4_BYTES


def test_what_a_layer_keeps_is_what_was_counted_in_pytorch() -> None:
    counted = 532_981_760 / 30 / 256  # autograd's saved tensors of 256 tokens, 30 layers, rank 16, float32

    assert kept_by_a_layer(SMALL, rank=16, device="cpu") == pytest.approx(counted, rel=0.005)


def test_the_parts_of_a_large_models_training() -> None:
    needed = training(LLAMA, Batch(4096, 1024), rank=32, quantized=True, device="gpu")
    adapter = LLAMA.adapter_parameters(32)

    assert adapter == 83_886_080
    assert needed.adapter == 4 * adapter
    assert needed.optimizer == 12 * adapter
    assert 5.5e9 < needed.weights < 6e9  # 7 billion weights in NF4, a billion of embedding and head in bf16
    assert needed.total == pytest.approx(
        needed.weights + needed.adapter + needed.optimizer + needed.activations + needed.logits + needed.rest
    )


def test_weights_that_are_not_quantized_take_two_bytes() -> None:
    plain = training(LLAMA, Batch(64, 16), rank=8, quantized=False, device="gpu")

    assert plain.weights == 2 * LLAMA.parameters
    assert answering(LLAMA, prompt=8, new=8, rows=1, rank=8, device="gpu").weights == 2 * LLAMA.parameters


def test_the_cache_of_an_8b_llama_is_an_eighth_of_a_megabyte_a_token() -> None:
    assert cache_bytes(LLAMA, 1, device="gpu") == 2 * 32 * 8 * 128 * 2 == 131_072
    many = answering(LLAMA, prompt=500, new=524, rows=16, rank=8, device="gpu")
    assert many.cache == 16 * 1024 * 131_072


@given(tokens=st.integers(1, 100_000), more=st.integers(1, 10_000), rank=st.sampled_from([8, 32, 64]))
def test_more_tokens_never_take_less(tokens: int, more: int, rank: int) -> None:
    for device in ("cpu", "gpu"):
        few = training(SMALL, Batch(tokens, tokens // 4), rank=rank, quantized=True, device=device)
        many = training(SMALL, Batch(tokens + more, (tokens + more) // 4), rank=rank, quantized=True, device=device)
        assert few.total < many.total


def test_gpus_have_rays_names() -> None:
    from ray.util.accelerators import accelerators

    names = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA")}
    assert set(GPUS) <= names
    assert gpu("A100") == GPUS["A100-40G"]
    assert gpu("") is gpu("TPU-V4") is None


def test_the_papers_hour_is_an_epoch_of_a_7b_model_over_its_rows() -> None:
    shape, rows, length = find_shape("google/gemma-7b"), 256_000, 300
    data = Batch(rows * length, rows * length // 4)
    flops = training_flops(shape, data, length=length, rank=32, device="gpu")
    hours = training_seconds(flops, GPUS["A100-40G"], workers=8) / 3600

    assert 0.8 < hours < 1.5
    assert 35 < hours * 8 * 6.25 < 75  # at the paper's own price, 50 dollars for 8 GPUs and an hour


def test_frozen_weights_cost_two_thirds_of_training_them_all() -> None:
    flops = training_flops(LLAMA, Batch(1, 0), length=0, rank=8, device="cpu")

    assert flops == pytest.approx(4 * LLAMA.linear_parameters, rel=0.02)


def test_two_actors_answer_in_half_the_time() -> None:
    asked = Answers(64, 200, 100, 16)
    one, two = (answer_seconds(LLAMA, asked, GPUS["L4"], engine="vllm", actors=n) for n in (1, 2))

    assert two == one / 2
    assert one > 4 * 100 * 2 * LLAMA.parameters / 0.3e12  # four batches of 100 steps, each reads all weights


def test_samples_of_one_prompt_read_it_once() -> None:
    apart = answering(SMALL, prompt=100, new=50, rows=48, rank=16, device="cpu")
    together = answering(SMALL, prompt=100, new=50, rows=48, rank=16, device="cpu", samples=4)

    assert together.activations == apart.activations / 4
    assert together.cache == apart.cache


MEASURED = {"step of 256": 1.295, "step of 768": 3.403, "trainer": 2.286, "answers": 1.177}
"""GB of SmolLM2 in one process on a CPU at their peak, above what the libraries had taken; docs/how-to/plan.md."""


def test_smollm2_takes_what_was_measured_within_a_fifth() -> None:
    def own(memory: Memory) -> float:
        return (memory.total - PROCESS_BYTES["cpu"]) / 1e9

    def step(tokens: int, learned: int) -> float:
        return own(training(SMALL, Batch(tokens, learned), rank=16, quantized=True, device="cpu"))

    planned = {
        "step of 256": step(256, 256),
        "step of 768": step(768, 768),
        "trainer": step(554, 28),
        "answers": own(answering(SMALL, prompt=135, new=16, rows=48, rank=16, device="cpu", samples=2)),
    }
    assert planned == pytest.approx(MEASURED, rel=0.2)
