"""Continuous batching with transformers: an answer joins the batch when it is asked for, and leaves it when it ends.

`decode` computes a batch that is known beforehand. A server's is not: here a request waits for no other's end.

    join(request) -> waiting -> read, PIECE tokens at a time, between the steps of the others
                  -> seated: one slot of the batch for each of its answers
    step()        -> one token of every answer that is seated
    leave(request)   also before its end

Keys and values of all answers lie in one block of slots, which are taken from the front; when one becomes free the
last one moves there. So joining and leaving copy one answer's, never the batch's.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicCache

from mlflow_llamaduo.inference.adapters import Adapters
from mlflow_llamaduo.inference.decode import SHARED_AT_LEAST, choose
from mlflow_llamaduo.inference.engine import Chosen, Sampling, Step
from mlflow_llamaduo.inference.slots import Slots

PIECE = 256
"""Tokens of a prompt that are read between two steps: a long one does not hold the others up. As many are kept of the
last prompt of each adapter, for prompts that begin alike."""


@dataclass(slots=True)
class Asked:
    """A request: `samples` answers to the prompt `ids`; `likeliest` counts the tokens to be told with each one.

    None tells no logarithms at all, which costs least.

    `stops` are the tokens that end an answer; the one that did is its last. `slot` is the adapter's that answers, and
    None the bare base. Every answer has a stream of chance of its own, as in `decode`.
    """

    key: int
    ids: list[int]
    sampling: Sampling
    stops: frozenset[int]
    slot: int | None = None
    samples: int = 1
    likeliest: int | None = None
    read: int = 0
    seated: int = 0
    cache: Any = None
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(slots=True)
class _Answer:
    asked: Asked
    sample: int
    length: int
    chance: np.random.Generator
    token: int = 0
    written: int = 0


class Batch:
    """Answers that are written together; not for several threads.

    Args:
        model: a causal language model of transformers; attention layers alone.
        adapters: those on it.
        context: the most tokens that a prompt and its answer may have together.
        slots: answers that are written at once; others wait.
    """

    def __init__(self, model: Any, adapters: Adapters, context: int, slots: int) -> None:
        self._model = model
        self._adapters = adapters
        self._context = context
        self._slots = slots
        self._waiting: deque[Asked] = deque()
        self._answers: list[_Answer] = []
        self._known: dict[int | None, tuple[list[int], list[tuple[torch.Tensor, torch.Tensor]]]] = {}
        config = model.config.get_text_config()
        self._windows = _windows(config)
        self._layers = [Slots(slots) for _ in range(config.num_hidden_layers)]
        self._cache = Cache(layers=self._layers)

    def __len__(self) -> int:
        """Requests' answers that are written."""
        return len(self._answers)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._answers

    @property
    def waiting(self) -> int:
        """Requests that have no slot yet."""
        return len(self._waiting)

    def join(self, asked: Asked) -> None:
        """Another request, behind those that wait; its prompt is shorter than the context."""
        self._waiting.append(asked)

    def forget(self, slot: int) -> None:
        """What was read with an adapter is not known any more: another one is in its slot."""
        self._known.pop(slot, None)

    @torch.inference_mode()
    def leave(self, key: int, sample: int | None = None) -> None:
        """Forget a request, wherever it is; or one of its answers, which has begun."""
        if sample is None:
            self._waiting = deque(asked for asked in self._waiting if asked.key != key)
        gone = [n for n, a in enumerate(self._answers) if a.asked.key == key and sample in (None, a.sample)]
        self._drop(gone)

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Read on for who waits, and write one token of every answer that is seated."""
        written = self._write() if self._answers else []
        first = self._seat() if self._waiting and len(self._answers) < self._slots else []
        return [*written, *first]

    def _seat(self) -> list[Step]:
        """A piece of the first prompt that waits; read to its end, its answers get their first tokens and slots."""
        asked = self._waiting[0]
        if asked.read < len(asked.ids):
            self._read(asked)
        if asked.read < len(asked.ids):
            return []
        room = min(self._slots - len(self._answers), asked.samples - asked.seated)
        new = [
            _Answer(asked, sample, len(asked.ids), chance(asked, sample))
            for sample in range(asked.seated, asked.seated + room)
        ]
        for answer in new:
            for layer, read in zip(self._layers, asked.cache.layers, strict=True):
                layer.seat(len(self._answers), read.keys, read.values)
            self._answers.append(answer)
        asked.seated += room
        steps = self._chosen(new, asked.logits.expand(len(new), -1))
        if asked.seated == asked.samples:
            self._waiting.popleft()
            asked.cache = None
        self._drop([row for row, answer in enumerate(self._answers) if self._over(answer)])
        return steps

    def _read(self, asked: Asked) -> None:
        if asked.cache is None:
            asked.cache, asked.read = self._begun(asked)
        ids = torch.tensor([asked.ids[asked.read : asked.read + PIECE]], device=self._model.device)
        with self._adapters.rows([asked.slot]):
            found = self._model(
                input_ids=ids,
                position_ids=torch.arange(asked.read, asked.read + ids.shape[1], device=ids.device)[None],
                attention_mask=self._mask([asked.read], ids.shape[1]),
                past_key_values=asked.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        asked.read += ids.shape[1]
        asked.logits = found.logits[:, -1]
        if asked.read == len(asked.ids):
            layers = [
                (layer.keys[:, :, :PIECE].clone(), layer.values[:, :, :PIECE].clone()) for layer in asked.cache.layers
            ]
            self._known[asked.slot] = (asked.ids[:PIECE], layers)

    def _begun(self, asked: Asked) -> tuple[DynamicCache, int]:
        """What the prompt has in common with the last one of its adapter was read then: a system prompt, examples."""
        cache = DynamicCache()
        ids, layers = self._known.get(asked.slot, ([], []))
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(ids, asked.ids[:-1], strict=False))
        shared = sum(1 for _ in alike)
        if shared < SHARED_AT_LEAST:
            return cache, 0
        for number, (keys, values) in enumerate(layers):
            cache.update(keys[:, :, :shared], values[:, :, :shared], number)
        return cache, shared

    def _write(self) -> list[Step]:
        device = self._model.device
        lengths = [answer.length for answer in self._answers]
        for layer in self._layers:
            layer.lengths, layer.longest = torch.tensor(lengths, device=device), max(lengths)
        with self._adapters.rows([answer.asked.slot for answer in self._answers]):
            found = self._model(
                input_ids=torch.tensor([[answer.token] for answer in self._answers], device=device),
                position_ids=torch.tensor(lengths, device=device)[:, None],
                attention_mask=self._mask(lengths, 1),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        for answer in self._answers:
            answer.length += 1
        steps = self._chosen(self._answers, found.logits[:, -1])
        self._drop([row for row, answer in enumerate(self._answers) if self._over(answer)])
        return steps

    def _chosen(self, answers: Sequence[_Answer], logits: torch.Tensor) -> list[Step]:
        """The next token of each; `logits` [answers, vocabulary]."""
        told = [i for i, answer in enumerate(answers) if answer.asked.likeliest is not None]
        likely = dict(zip(told, torch.log_softmax(logits[told].float(), dim=-1), strict=True)) if told else {}
        tokens: dict[int, int] = {}
        alike = sorted(range(len(answers)), key=lambda i: _way(answers[i]))
        for _, rows in groupby(alike, key=lambda i: _way(answers[i])):
            own = list(rows)
            chances = torch.tensor([float(answers[i].chance.random()) for i in own], device=logits.device)
            tokens |= zip(own, choose(logits[own], chances, answers[own[0]].asked.sampling).tolist(), strict=True)
        return [self._step(answer, tokens[i], likely.get(i)) for i, answer in enumerate(answers)]

    def _step(self, answer: _Answer, token: int, likely: torch.Tensor | None) -> Step:
        answer.token = token
        answer.written += 1
        chosen = Chosen(token) if likely is None else _told(token, likely, answer.asked.likeliest or 0)
        return Step(answer.asked.key, answer.sample, chosen, self._over(answer))

    def _over(self, answer: _Answer) -> bool:
        most = min(answer.asked.sampling.max_new_tokens, self._context - len(answer.asked.ids))
        return answer.token in answer.asked.stops or answer.written >= most

    def _drop(self, rows: Sequence[int]) -> None:
        """Slots become free; what lies behind moves up, the last one first."""
        for row in sorted(rows, reverse=True):
            last = self._answers.pop()
            if row < len(self._answers):
                self._answers[row] = last
                for layer in self._layers:
                    layer.move(len(self._answers), row, last.length)

    def _mask(self, lengths: Sequence[int], new: int) -> Any:
        """Who looks at what: [rows, 1, new, tokens], True where it does; by kind of layer where there are several."""
        device = self._model.device
        keys = torch.arange(max(lengths) + new, device=device)
        places = torch.tensor(lengths, device=device)[:, None] + torch.arange(new, device=device)
        seen = keys <= places[:, None, :, None]
        masks = {
            kind: seen if window is None else seen & (keys > places[:, None, :, None] - window)
            for kind, window in self._windows.items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))


def chance(asked: Asked, sample: int) -> np.random.Generator:
    """The chance of one answer: the same for the same seed, prompt and sample, whoever else is in the batch."""
    seed = asked.sampling.seed
    return np.random.default_rng(None if seed is None else [seed % 2**32, sample, *asked.ids])


def _told(token: int, likely: torch.Tensor, count: int) -> Chosen:
    """A token with logarithms: its own, and those of the likeliest."""
    top = likely.topk(count)
    return Chosen(token, float(likely[token]), tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)))


def _way(answer: _Answer) -> tuple[float, float]:
    return answer.asked.sampling.temperature, answer.asked.sampling.top_p


def _windows(config: Any) -> dict[str, int | None]:
    """How far each kind of layer looks back, in tokens; None is to the beginning."""
    kinds = sorted(set(getattr(config, "layer_types", None) or ["full_attention"]))
    window = getattr(config, "sliding_window", None)
    if len(kinds) == 1 and getattr(config, "layer_types", None) is None:
        return {kinds[0]: window}  # Mistral: one kind, with a window or without
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}
