"""The GPUs a plan knows, by Ray's accelerator names."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: bytes that CUDA offers, dense peak in FLOP a second, bytes a second from its memory.

    Peak and bandwidth are NVIDIA's data sheets', without sparsity: of bf16, or of float32 where the hardware has no
    bf16, for that is what is computed in there. What an hour costs stands in the price book (prices.yaml).
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    bf16: bool = True

    def times(self, count: int) -> "Gpu":
        """So many of them as one, with nothing lost between them."""
        return replace(
            self,
            memory=count * self.memory,
            flops=count * self.flops,
            bandwidth=count * self.bandwidth,
        )


GPUS = {
    gpu.name: gpu
    for gpu in (
        # NVIDIA T4 data sheet: 16 GB, 320 GB/s, 8.1 TFLOPS in float32 (65 in fp16, which is not used).
        Gpu("T4", 15.8e9, 8.1e12, 0.320e12, bf16=False),
        # NVIDIA V100 data sheet, SXM2: 16 GB (also sold with 32), 900 GB/s, 15.7 TFLOPS in float32.
        Gpu("V100", 16.9e9, 15.7e12, 0.900e12, bf16=False),
        Gpu("L4", 23.7e9, 121e12, 0.300e12),
        Gpu("A10G", 23.8e9, 70e12, 0.600e12),
        Gpu("A100-40G", 42.3e9, 312e12, 1.555e12),
        # NVIDIA L40S data sheet: 48 GB, 864 GB/s, 362.05 TFLOPS in bf16.
        Gpu("L40S", 47.8e9, 362e12, 0.864e12),
        Gpu("A100-80G", 85.0e9, 312e12, 2.039e12),
        Gpu("H100", 84.9e9, 989e12, 3.350e12),
        # NVIDIA H200 data sheet, SXM: 141 GB, 4.8 TB/s, 989 TFLOPS in bf16 (1,979 with sparsity).
        Gpu("H200", 150.0e9, 989e12, 4.800e12),
    )
}
"""From the smallest memory to the largest, but for the H100, which is dearer than an A100 with as much."""


def gpu(name: str) -> Gpu | None:
    """By Ray's name; `A100` alone is taken for the smaller one. None if it is not known here, or no name is given."""
    return GPUS.get("A100-40G" if name == "A100" else name)
