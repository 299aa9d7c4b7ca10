"""Linear layers on a CPU with weights laid out once as oneDNN's kernels read them, and not again at every step.

What PyTorch's compiler does when it freezes a model (`torch._inductor`, freezing), for a server, which loads a base
once and reads its weights for every token. On two cores a step of 16 answers of a model of 135M takes 87 to 109 ms
instead of 134 to 173, taken in turns. The operators are PyTorch's own, and not promised to stay; where they are
missing the layers are left as they are.
"""

from typing import Any

import torch
from torch import nn

ROWS = 16
"""For which a layout is chosen; it computes any number."""


class Packed(nn.Linear):
    """A linear layer in float32 whose weights only oneDNN reads; `weight` has their shape, and no values."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        unknown = torch.full((), torch.nan, dtype=linear.weight.dtype)
        self.weight = nn.Parameter(unknown.expand(linear.weight.shape), requires_grad=False)
        self.bias = linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as nn.Linear has it
        """The same as of the layer that was packed, but for the order of its sums."""
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")
        return found


def pack(model: Any) -> None:
    """Pack the linear layers of a model that only answers; one on a GPU, or in another type, stays as it is."""
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, Packed(module))
