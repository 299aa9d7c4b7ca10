"""How many bytes a model takes while it is trained, and while it answers: pure arithmetic over its shape.

Weights: NF4 with double quantization is 4 bits, an 8-bit scale for 64 weights and a 32-bit one for 256 scales, 4.127
bits in all (QLoRA, arXiv 2305.14314, section 3); embeddings, norms and head are not quantized. Adapter, gradients and
both states of AdamW are float32. What activations are kept follows from the operations of a layer, one by one
(`kept_by_a_layer`); counted in PyTorch on SmolLM2 it is off by 0.3 %. Checkpoints as in arXiv 2205.05198: one layer's
input each, and one layer's activations while it is computed again.

What is assumed and not derived stands in capitals, with its reason.
"""

from dataclasses import dataclass, fields
from typing import Literal

from mlflow_llamaduo.core.shape import Shape

Device = Literal["gpu", "gpu32", "cpu"]
"""`gpu32` is a GPU without bf16 in hardware, where float32 is computed in."""

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
FLOAT32 = 4
ADAPTER_BYTES = FLOAT32 * 4
"""An adapter's parameter in training: itself, its gradient, AdamW's two states."""
VALUE_BYTES = {"gpu": 2, "gpu32": FLOAT32, "cpu": FLOAT32}
"""bf16 where the hardware has it; a CPU computes in float32, and so does a GPU of before 2020."""
MASK_BYTES = {"gpu": 1, "gpu32": 1, "cpu": FLOAT32}
"""What dropout keeps for each value."""
PROCESS_BYTES = {"gpu": 0.7e9, "gpu32": 0.7e9, "cpu": 0.64e9}
"""CUDA's context and cuBLAS's workspace (an assumption); Python with the libraries in memory (measured)."""
SLACK = {"gpu": 1.1, "gpu32": 1.1, "cpu": 1.5}
"""What the allocator holds over what lives in it. A tenth on CUDA (an assumption); on CPU glibc's heap keeps the gaps
between tensors of many sizes: 1.5 measured, and 1.0 with each tensor in pages of its own (MALLOC_MMAP_THRESHOLD_)."""
TILE = 4096 * 8192
"""Logits that are there together while a GPU trains: trl's head computes them in tiles, positions by words."""
VLLM_SHARE = 0.9
"""Of a GPU's memory, what vLLM takes (`gpu_memory_utilization`); it holds weights, activations and the KV cache."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by part. `logits` is the head's work, `cache` keys and values.

    `rest` is the process, the allocator, and what the whole base takes more than the training of a quantized one.
    """

    weights: float
    adapter: float
    optimizer: float
    activations: float
    logits: float
    cache: float
    rest: float

    @property
    def total(self) -> float:
        """All parts."""
        return float(sum(getattr(self, part.name) for part in fields(self)))


@dataclass(frozen=True, slots=True)
class Batch:
    """What is computed together: `tokens` of all rows, and those of them that are `learned`. Nothing is padded."""

    tokens: int
    learned: int


def training(shape: Shape, batch: Batch, *, rank: int, quantized: bool, device: Device) -> Memory:
    """Bytes of one worker at the end of a forward pass, where most is alive. A GPU recomputes activations."""
    value = VALUE_BYTES[device]
    linear = NF4_BYTES if quantized else value
    weights = shape.linear_parameters * linear + shape.other_parameters * value
    adapter = shape.adapter_parameters(rank)
    states = adapter * (ADAPTER_BYTES - FLOAT32)
    activations = training_activations(shape, batch.tokens, rank=rank, device=device)
    logits = _logits(shape, batch.learned, device, activations)
    own = (weights, adapter * FLOAT32, states, activations, logits, 0.0)
    return Memory(*own, rest=_rest(own, device) + (_asked_whole(shape, device, own) if quantized else 0))


def _asked_whole(shape: Shape, device: Device, own: tuple[float, ...]) -> float:
    """After a training on a quantized base the adapter is asked on the whole one, too (`probe`).

    It gets what the activations had: the worker gives that back to the system before.
    """
    return max(0.0, shape.parameters * VALUE_BYTES[device] - sum(own[3:]))


def training_activations(shape: Shape, tokens: int, *, rank: int, device: Device) -> float:
    """What the backward pass of a batch needs of the layers. The trainer's way of batching is in here alone.

    The rows of a batch lie one behind the other, so a mask of tokens by tokens says who attends to whom.
    """
    value = VALUE_BYTES[device]
    layer = tokens * kept_by_a_layer(shape, rank=rank, device=device)
    mask = tokens * tokens * value
    if device == "cpu":
        return shape.layers * layer + mask
    inputs = shape.layers * tokens * shape.hidden * value
    widest = max(n_in * n_out for n_in, n_out in shape.linears)
    gradients = tokens * (2 * shape.hidden + 3 * shape.intermediate) * value
    return inputs + layer + gradients + widest * value + mask  # NF4 weights are unpacked one at a time


def kept_by_a_layer(shape: Shape, *, rank: int, device: Device) -> float:
    """Bytes for each token that one layer keeps for its backward pass.

    The two norms keep their input; attention q, k, v and its output; the MLP gate, its activation, and up. LoRA keeps
    the input of each linear layer behind its own dropout, the dropout's mask, and what its first matrix gives.
    """
    norms = 2 * shape.hidden
    attention = 2 * shape.queries + 2 * shape.keys + shape.heads
    mlp = 3 * shape.intermediate
    inputs = sum(n_in for n_in, _ in shape.linears)
    values = norms + attention + mlp + inputs + rank * len(shape.linears)
    return values * VALUE_BYTES[device] + inputs * MASK_BYTES[device]


def answering(
    shape: Shape, *, prompt: int, new: int, rows: int, rank: int, device: Device, samples: int = 1
) -> Memory:
    """Bytes while `rows` conversations of `prompt` tokens are answered together with up to `new` tokens each.

    `samples` of them have one prompt, which is read once. Weights are not quantized: what the gate judged is served.
    """
    value = VALUE_BYTES[device]
    weights = shape.parameters * value
    adapter = shape.adapter_parameters(rank) * value
    cache = cache_bytes(shape, prompt + new, device=device) * rows
    widest = shape.hidden * 2 + shape.intermediate * 3
    read = -(-rows // samples) * prompt
    activations = read * (widest + prompt) * value
    logits = 3.0 * rows * shape.vocab * FLOAT32  # as float32, sorted for top-p, and as chances
    own = (weights, adapter, 0.0, activations, logits, cache)
    return Memory(*own, rest=_rest(own, device))


def cache_bytes(shape: Shape, length: int, *, device: Device) -> float:
    """Keys and values of one conversation of `length` tokens."""
    return float(2 * shape.kept(length) * VALUE_BYTES[device])


def _logits(shape: Shape, learned: int, device: Device, activations: float) -> float:
    """The head runs before learned tokens only: logits, their log-softmax and its gradient, float32 on a CPU.

    A GPU trains with tiles; its dev loss has bf16 logits, and float32 twice, when no activations are kept.
    """
    values = float(learned * shape.vocab)
    if device == "cpu":
        return 3 * FLOAT32 * values
    tiles = 2 * FLOAT32 * min(values, TILE) + FLOAT32 * learned * shape.hidden
    return max(tiles, (VALUE_BYTES[device] + 2 * FLOAT32) * values - activations)


def _rest(own: tuple[float, ...], device: Device) -> float:
    """The process, and the allocator's slack over what comes and goes: weights and states stay and leave no gaps."""
    return PROCESS_BYTES[device] + (SLACK[device] - 1) * sum(own[3:])
