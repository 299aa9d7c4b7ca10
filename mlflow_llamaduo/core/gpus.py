"""The GPUs a plan knows, by Ray's accelerator names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: bytes that CUDA offers, dense bf16 peak in FLOP a second, bytes a second from its memory, dollars.

    Peak and bandwidth are NVIDIA's data sheets'. Dollars an hour are a typical on-demand price, an assumption:
    `finetune.usd_per_hour` takes its place.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    usd_per_hour: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("L4", 23.7e9, 121e12, 0.300e12, 0.80),
        Gpu("A10G", 23.8e9, 70e12, 0.600e12, 1.20),
        Gpu("A100-40G", 42.3e9, 312e12, 1.555e12, 2.50),
        Gpu("A100-80G", 85.0e9, 312e12, 2.039e12, 3.50),
        Gpu("H100", 84.9e9, 989e12, 3.350e12, 5.00),
    )
}
"""From the smallest memory to the largest, but for the H100, which is dearer than an A100 with as much."""


def gpu(name: str) -> Gpu | None:
    """By Ray's name; `A100` alone is taken for the smaller one. None if it is not known here, or no name is given."""
    return GPUS.get("A100-40G" if name == "A100" else name)
