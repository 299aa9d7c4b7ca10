"""How long a training and a round of answers take, from FLOP and bytes. All of it is an estimate; see the factors."""

from dataclasses import dataclass

from mlflow_llamaduo.core.gpus import Gpu
from mlflow_llamaduo.core.memory import VALUE_BYTES, Batch, Device, cache_bytes
from mlflow_llamaduo.core.shape import Shape

UTILIZATION = 0.35
"""Share of a GPU's peak that QLoRA reaches: an assumption. The paper's only figure is one run over 256K rows in about
an hour on 8 A100. At this share and 300 tokens a row that is one epoch of a model of 7 billion parameters; all ten
epochs of the recipe take ten times as long."""
BANDWIDTH = 0.7
"""Share of a GPU's bandwidth that decoding reaches: an assumption."""
STEP_S = {"transformers": 0.03, "vllm": 0.006}
"""The least time of one decoding step, whatever the model: Python and kernel launches. An assumption."""
CPU_FLOPS = 22e9
"""FLOP a second of one CPU core, in float32; two cores train SmolLM2 at about 100 tokens a second."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One round of inference: `count` responses of `new` tokens to prompts of `prompt`, `rows` at a time."""

    count: int
    prompt: int
    new: int
    rows: int


def training_flops(shape: Shape, data: Batch, *, length: float, rank: int, device: Device) -> float:
    """FLOP of one pass over `data`: forward, and backward through weights that are frozen and need no gradient.

    A pass through a matrix is two FLOP for each weight and token. Frozen weights: forward and the inputs' gradient;
    the adapter's own gradient besides; on a GPU the forward pass is computed twice. Attention as in a causal mask.
    """
    again = 0 if device == "cpu" else 1
    frozen = 2.0 * shape.linear_parameters * (2 + again)
    adapter = 2.0 * shape.adapter_parameters(rank) * (3 + again)
    attention = 2.0 * length * shape.queries * shape.layers * (3 + again)
    head = 2.0 * shape.vocab * shape.hidden * (2 + again)
    return data.tokens * (frozen + adapter + attention) + data.learned * head


def training_seconds(flops: float, place: Gpu | int, *, workers: int) -> float:
    """On `workers` GPUs, or on so many cores of a CPU, which the workers share."""
    if isinstance(place, Gpu):
        return flops / (workers * UTILIZATION * place.flops)
    return flops / (place * CPU_FLOPS)


def answer_seconds(shape: Shape, asked: Answers, place: Gpu | int, *, engine: str, actors: int) -> float:
    """Prompts are read at the speed of training; each step of an answer reads all weights and the cache once."""
    read = 2.0 * shape.linear_parameters * asked.prompt * asked.count
    written = 2.0 * shape.parameters * asked.new * asked.count
    if isinstance(place, int):
        return (read + written) / (place * CPU_FLOPS)
    device: Device = "gpu" if place.bf16 else "gpu32"
    cache = asked.rows * cache_bytes(shape, asked.prompt + asked.new, device=device)
    step = (shape.parameters * VALUE_BYTES[device] + cache) / (BANDWIDTH * place.bandwidth)
    steps = asked.new * -(-asked.count // asked.rows)
    return (read / (UTILIZATION * place.flops) + steps * max(step, STEP_S[engine])) / actors
