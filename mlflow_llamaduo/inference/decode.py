"""The decode loop of the transformers engine: prompts are read once, and the batch of their answers only shrinks.

What `generate` does not do, each of which pays (benchmarks/README.md):

- What all prompts of a batch begin with, the system message or the examples, is read once, and not once a prompt.
- K samples go on from one reading of their prompt.
- An answer that has ended leaves the batch; as padding it would be computed until the longest has ended.

Every answer has a stream of chance of its own, seeded by its prompt and its number: it does not change with the other
prompts of the batch, nor with who computes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mlflow_llamaduo.inference.engine import Sampling

SHARED_AT_LEAST = 16
"""Tokens; reading a shorter beginning in a step of its own costs more than it saves."""

CROWDED = 7 / 8
"""The batch is packed anew when this share of it, or less, still writes: packing copies all keys and values."""


COLD = 1e-4
"""A temperature below it is greedy: what is divided by still less is no number any more."""


@dataclass(slots=True)
class _Read:
    """A batch that has been read: keys and values, attention mask [rows, tokens], next logits [rows, vocabulary]."""

    cache: DynamicCache
    mask: torch.Tensor
    logits: torch.Tensor
    context: int

    def repeat(self, times: int) -> None:
        if times > 1:
            self.cache.batch_repeat_interleave(times)
            self.mask = self.mask.repeat_interleave(times, dim=0)
            self.logits = self.logits.repeat_interleave(times, dim=0)

    def read(self, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        """`ids` [rows, tokens] follow on what was read; `mask` is 0 where they are padding."""
        self.mask = torch.cat([self.mask, mask], dim=1)
        # An answer that has ended stays for a few steps more; learned positions have none beyond the context.
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0, max=self.context - 1)[:, -ids.shape[1] :]
        self.logits = model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,  # the head over all positions of a prompt would be work for nothing
        ).logits[:, -1]

    def keep(self, lines: torch.Tensor) -> None:
        self.cache.batch_select_indices(lines)
        self.mask = self.mask[lines]


@torch.inference_mode()
def decode(
    model: Any, prompts: Sequence[list[int]], sampling: Sampling, samples: int, stops: frozenset[int], context: int
) -> Iterator[dict[int, int]]:
    """Write `samples` answers to each prompt, a token of each at a time.

    Args:
        model: a causal language model of transformers, or PEFT's around one.
        prompts: token ids, each shorter than `context`.
        sampling: how to choose, and how many tokens at most.
        samples: answers to a prompt; answer `s` to prompt `p` is row `p * samples + s`.
        stops: the tokens that end an answer; the one that did is its last token.
        context: the most tokens that a prompt and its answer may have together.

    Yields:
        the next token of every row that still writes.
    """
    read = _prefill(model, prompts, context)
    read.repeat(samples)
    limits = [min(sampling.max_new_tokens, context - len(ids)) for ids in prompts for _ in range(samples)]
    chances = _chances(prompts, sampling, samples).to(read.logits.device)
    rows = list(range(len(limits)))  # the answer on each line of the batch
    lines: list[int | None] = list(rows)  # None where it has ended
    for step in range(max(limits)):
        tokens = choose(read.logits, chances[rows, step], sampling)
        written = {row: token for row, token in zip(lines, tokens.tolist(), strict=True) if row is not None}
        yield written
        lines = [None if row is None or _ended(written[row], step, limits[row], stops) else row for row in lines]
        alive = [line for line, row in enumerate(lines) if row is not None]
        if not alive:
            return
        if len(alive) <= CROWDED * len(lines):
            kept = torch.tensor(alive, device=tokens.device)
            read.keep(kept)
            tokens = tokens[kept]
            rows, lines = [rows[line] for line in alive], [lines[line] for line in alive]
        read.read(model, tokens[:, None], torch.ones_like(tokens)[:, None])


def _ended(token: int, step: int, limit: int, stops: frozenset[int]) -> bool:
    return token in stops or step + 1 >= limit


def _prefill(model: Any, prompts: Sequence[list[int]], context: int) -> _Read:
    cache = DynamicCache(config=model.config)
    nothing = torch.empty(0, device=model.device)
    read = _Read(cache, torch.empty((1, 0), dtype=torch.long, device=model.device), nothing, context)
    shared = _shared(prompts, cache)
    if shared:
        ids = torch.tensor([prompts[0][:shared]], device=model.device)
        read.read(model, ids, torch.ones_like(ids))
        read.repeat(len(prompts))
    else:
        read.mask = read.mask.expand(len(prompts), 0)
    rests = [ids[shared:] for ids in prompts]
    longest = max(map(len, rests))
    ids = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests], device=model.device)
    mask = torch.tensor([[0] * (longest - len(rest)) + [1] * len(rest) for rest in rests], device=model.device)
    read.read(model, ids, mask)
    return read


def _shared(prompts: Sequence[list[int]], cache: DynamicCache) -> int:
    """How many tokens all prompts begin with, the last of each left to be read; 0 where sharing does not pay.

    The padding then stands between beginning and rest. A layer with a window counts places, padding too: such models
    share nothing.
    """
    if len(prompts) < 2 or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return 0
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))  # to the shortest's end
    shared = min(sum(1 for _ in alike), min(map(len, prompts)) - 1)
    return shared if shared >= SHARED_AT_LEAST else 0


def _chances(prompts: Sequence[list[int]], sampling: Sampling, samples: int) -> torch.Tensor:
    """A number from 0 to 1 for every token that may be written: [rows, tokens]."""
    rows = len(prompts) * samples
    if sampling.temperature == 0:
        return torch.zeros((rows, 1), dtype=torch.float64).expand(rows, sampling.max_new_tokens)
    drawn = []
    for ids in prompts:
        for sample in range(samples):
            seed = None if sampling.seed is None else [sampling.seed % 2**32, sample, *ids]
            drawn.append(np.random.default_rng(seed).random(sampling.max_new_tokens))
    return torch.from_numpy(np.stack(drawn))


def choose(logits: torch.Tensor, chance: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """One token a row: the likeliest, or where `chance` falls among the likelihoods laid end to end."""
    if sampling.temperature < COLD:
        return logits.argmax(dim=-1)
    likely = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p == 1:
        return _fallen(likely, chance)
    likely, order = likely.sort(dim=-1, descending=True)
    before = likely.cumsum(dim=-1) - likely
    likely = torch.where(before < sampling.top_p, likely, 0.0)
    return order.gather(1, _fallen(likely, chance)[:, None])[:, 0]


def _fallen(likely: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    ends = likely.cumsum(dim=-1, dtype=torch.float64)
    at = torch.searchsorted(ends, chance.to(ends)[:, None] * ends[:, -1:], right=True)
    return at[:, 0].clamp(max=likely.shape[-1] - 1)
