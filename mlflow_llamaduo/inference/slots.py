"""Keys and values of many answers in one block, from which each comes and goes without copying the others'."""

from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

ROOM = 256
"""Tokens of a slot at first; it grows as answers do."""


class Slots(CacheLayerMixin):
    """One layer's keys and values: [slots, heads, room, size]. `lengths` says where each of the first rows writes."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self._slots = slots
        self.lengths: torch.Tensor = torch.empty(0, dtype=torch.long)
        self.longest = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Room for all slots, of the shape of the first states that come."""
        _, heads, _, size = key_states.shape
        self.keys = key_states.new_zeros(self._slots, heads, ROOM, size)
        self.values = value_states.new_zeros(self._slots, heads, ROOM, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One token of each of the first rows; all that these rows have."""
        rows = torch.arange(len(self.lengths), device=key_states.device)
        self.reserve(self.longest + 1)
        self.keys[rows, :, self.lengths] = key_states[:, :, 0]
        self.values[rows, :, self.lengths] = value_states[:, :, 0]
        return self.keys[: len(rows), :, : self.longest + 1], self.values[: len(rows), :, : self.longest + 1]

    def reserve(self, tokens: int) -> None:
        """Room for so many tokens in each slot: twice as much whenever it does not suffice."""
        room = self.keys.shape[2]
        if tokens > room:
            more = max(tokens, 2 * room) - room
            self.keys, self.values = (
                torch.cat([part, part.new_zeros(*part.shape[:2], more, part.shape[3])], dim=2)
                for part in (self.keys, self.values)
            )

    def seat(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """What was read alone, [1, heads, tokens, size], into a slot."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self.reserve(keys.shape[2])
        self.keys[row, :, : keys.shape[2]] = keys[0]
        self.values[row, :, : keys.shape[2]] = values[0]

    def move(self, source: int, target: int, length: int) -> None:
        """One slot's content to another."""
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Never asked: the mask is ours."""
        return self.longest + query_length, 0

    def get_seq_length(self) -> int:
        """Of the longest answer."""
        return self.longest

    def get_max_length(self) -> int:
        """There is none."""
        return -1
