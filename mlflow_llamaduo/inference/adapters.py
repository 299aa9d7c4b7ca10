"""LoRA adapters on one base, several at once: each row of a batch is answered with its own.

The adapters of a linear layer lie side by side, as one pair of matrices of rank slots x rank. A row lets its own part
through, times its scaling (alpha / rank), and nothing of the others':

    y = W x + ((x A) * gate) B        A [in, slots x rank], B [slots x rank, out], gate [rows, 1, slots x rank]

PEFT takes the adapters of a mixed batch one after the other, the rows of each alone, in every layer: six small
operations an adapter and a layer, where here it is one for all. What is loaded is what PEFT saves: safetensors and
adapter_config.json of plain LoRA. Anything beyond is refused: it would be left out in silence.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.inference.engine import ADAPTER_CONFIG, WEIGHTS

PREFIX = "base_model.model."
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": (None,),
    "fan_in_fan_out": (False,),
}
"""What adapter_config.json may say of what is not done here."""


class Adapters:
    """The adapters of one base model.

    Args:
        base: a causal language model of transformers; its linear layers are wrapped when an adapter names them.
        slots: adapters that are held at once.
    """

    def __init__(self, base: nn.Module, *, slots: int) -> None:
        self._base = base
        self._slots = slots
        self._gate = _Gate(slots)
        self._layers: dict[str, _Layer] = {}
        self._told: dict[int, str] = {}

    @property
    def slots(self) -> int:
        """Adapters that are held at once."""
        return self._slots

    def load(self, slot: int, folder: Path) -> None:
        """Put an adapter into a slot, in the place of the one before.

        Raises:
            FileNotFoundError: there is no adapter in the folder.
            DataError: it is more than plain LoRA, or is not of this base.
        """
        self.put(slot, read(folder))

    def put(self, slot: int, adapter: "Adapter") -> None:
        """The same with an adapter that has been read: reading may be another thread's work.

        Raises:
            DataError: it is not of this base.
        """
        folder, config, parts = adapter.folder, adapter.config, adapter.parts
        rank = int(config["r"])
        wanted = {name: self._linear(name, folder) for name in parts}
        for name, (a, b) in parts.items():
            linear = wanted[name]
            if a.shape != (rank, linear.in_features) or b.shape != (linear.out_features, rank):
                raise DataError(
                    f"{folder}: the adapter's {name} is not of this base: {tuple(a.shape)}, {tuple(b.shape)}"
                )
        self._gate.widen(rank)
        for name in wanted.keys() - self._layers.keys():
            self._layers[name] = self._wrap(name)
        for name, layer in self._layers.items():
            layer.put(slot, self._gate.rank, parts.get(name))
        scale = adapter.scale
        self._gate.scales[slot] = scale
        where = ", ".join(sorted({name.rpartition(".")[2] for name in parts}))
        self._told[slot] = (
            f"rank {rank}, alpha {config['lora_alpha']}, factor {scale:g} in {len(parts)} layers ({where})"
        )

    def holds(self, slot: int) -> bool:
        """Whether there is an adapter in a slot."""
        return slot in self._told

    @contextmanager
    def rows(self, slots: Sequence[int | None]) -> Iterator[None]:
        """Within the block row n of a batch is answered with the adapter in `slots[n]`; None is the bare base.

        One slot is for all rows, however many there are.
        """
        before = self._gate.now
        self.use(slots)
        try:
            yield
        finally:
            self._gate.now = before

    def use(self, slots: Sequence[int | None]) -> None:
        """The same from now on."""
        self._gate.use(slots, next(self._base.parameters()))

    def told(self, slot: int) -> str:
        """What is in a slot, in the words of parity: rank, alpha, the factor that is applied, and where."""
        return self._told.get(slot, "no adapter")

    def _linear(self, name: str, folder: Path) -> nn.Linear:
        try:
            found = self._base.get_submodule(name)
        except AttributeError:
            found = None
        linear = found.base if isinstance(found, _Layer) else found
        if not isinstance(linear, nn.Linear):
            raise DataError(f"{folder}: the adapter is not of this base, which has no linear layer {name}")
        return linear

    def _wrap(self, name: str) -> "_Layer":
        parent, _, own = name.rpartition(".")
        layer = _Layer(self._linear(name, Path()), self._gate, self._slots)
        setattr(self._base.get_submodule(parent), own, layer)
        return layer


class _Gate:
    """Which part of the adapters each row lets through; one for all layers."""

    def __init__(self, slots: int) -> None:
        self.rank = 0
        self.scales = [0.0] * slots
        self.now: tuple[slice, torch.Tensor] | None = None

    def widen(self, rank: int) -> None:
        self.rank = max(self.rank, rank)

    def use(self, slots: Sequence[int | None], like: torch.Tensor) -> None:
        """Parts that no row uses are not computed where they lie at the ends."""
        used = sorted({slot for slot in slots if slot is not None})
        if not used or not self.rank:
            self.now = None
            return
        first, past = used[0], used[-1] + 1
        gate = like.new_zeros(len(slots), 1, (past - first) * self.rank)
        for row, slot in enumerate(slots):
            if slot is not None:
                start = (slot - first) * self.rank
                gate[row, 0, start : start + self.rank] = self.scales[slot]
        self.now = slice(first * self.rank, past * self.rank), gate


class _Layer(nn.Module):
    """A linear layer with the adapters' parts beside it."""

    _a: torch.Tensor
    _b: torch.Tensor

    def __init__(self, base: nn.Linear, gate: _Gate, slots: int) -> None:
        super().__init__()
        self.base = base
        self._gate = gate
        self._slots = slots
        self._rank = 0
        self.register_buffer("_a", base.weight.new_zeros(0, base.in_features), persistent=False)
        self.register_buffer("_b", base.weight.new_zeros(0, base.out_features), persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The base's: some models look at it."""
        return self.base.weight

    def put(self, slot: int, rank: int, part: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        """Another part for a slot, or none; all slots have room for `rank`."""
        if rank > self._rank:
            self._a, self._b = (self._widened(held, rank) for held in (self._a, self._b))
            self._rank = rank
        start = slot * self._rank
        for held in (self._a, self._b):
            held[start : start + self._rank] = 0
        if part is not None:
            own = part[0].shape[0]
            self._a[start : start + own] = part[0].to(self._a)
            self._b[start : start + own] = part[1].T.to(self._b)

    def _widened(self, held: torch.Tensor, rank: int) -> torch.Tensor:
        wide = held.new_zeros(self._slots, rank, held.shape[1])
        if self._rank:
            wide[:, : self._rank] = held.view(self._slots, self._rank, -1)
        return wide.flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The base's output, and what each row's own adapter adds."""
        out: torch.Tensor = self.base(x)
        if self._gate.now is None or not self._rank:
            return out
        used, gate = self._gate.now
        return out + (nn.functional.linear(x, self._a[used]) * gate.to(x.dtype)) @ self._b[used]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that has been read: its configuration, and both matrices by the name of the layer."""

    folder: Path
    config: dict[str, Any]
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]]

    @property
    def scale(self) -> float:
        """The factor that is applied: alpha / rank, or alpha / sqrt(rank) where it says so."""
        rank = int(self.config["r"])
        return float(self.config["lora_alpha"] / (math.sqrt(rank) if self.config.get("use_rslora") else rank))


def read(folder: Path) -> Adapter:
    """Read what PEFT has saved.

    Raises:
        FileNotFoundError: there is no adapter in the folder.
        DataError: it is more than plain LoRA, or the file is not whole.
    """
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}")
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    for name, allowed in PLAIN.items():
        if config.get(name, allowed[0]) not in allowed:
            raise DataError(f"{folder}: the adapter has {name} {config[name]!r}; only plain LoRA is served")
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise DataError(f"{folder / WEIGHTS} is not whole: {error}") from error
    names = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in weights}
    parts = {}
    for name in names:
        pair = tuple(weights.pop(f"{PREFIX}{name}.lora_{side}.weight", None) for side in "AB")
        if pair[0] is None or pair[1] is None:
            raise DataError(f"{folder}: the adapter's {name} is not plain LoRA")
        parts[name] = (pair[0], pair[1])
    if weights or not parts:
        raise DataError(
            f"{folder}: weights that are not plain LoRA's: {', '.join(sorted(weights)[:3]) or 'none at all'}"
        )
    return Adapter(folder, config, parts)
