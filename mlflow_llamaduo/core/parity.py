"""Is the model that will be served the model that was trained?

    trained     what the fine-tuning worker wrote of the model in its memory (`probes.json`)
    served      what the packed version says, loaded as serving loads it

    compare(trained, served) -> Parity

Facts (digests, names) must be equal. Probes are what either says to a few dev prompts, and must agree within a
tolerance: no digest shows an adapter that is loaded and does nothing. A base quantized for training says something
else than the whole one that is served; so the worker asks its adapter, as it is in memory, on both.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from mlflow_llamaduo.core.records import Pair, PairSet

TOP = 64
"""Tokens of a probe: the likeliest ones of the trained model."""
PROBES = 4
"""Dev pairs that are asked; fewer where dev has fewer that the template takes."""
TOKENS = 16
"""How far into an answer greedy choices are compared."""
PROBES_FILE = "probes.json"
"""Stands in the folder of an adapter."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one side is. Digests are 16 hexadecimal digits.

    `weights` is the digest of the adapter's file; `lora` says rank, alpha, the factor really applied, and where;
    `end` is the id of the token that ends an answer; `dtype` is what is computed in; `quantization`:
    `nf4` or `none`.
    """

    base: str
    base_digest: str
    weights: str
    lora: str
    template: str
    tokenizer: str
    end: int
    dtype: str
    quantization: str


@dataclass(frozen=True, slots=True)
class Probe:
    """One dev pair as a model reads it, and what it says to it.

    `on` and `off` are log-probabilities (nats) of the tokens `first` as the answer's first token, with the adapter
    and without it. `choices` are the likeliest tokens after the prompt and after each token of `reply`, the pair's
    own response.
    `answer` is the greedy answer, or its beginning: up to where it leaves the reply; `ended` says that it is whole.
    `quantized` is `on` as the quantized base of the training says it.
    """

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    first: tuple[int, ...]
    on: tuple[float, ...]
    off: tuple[float, ...]
    choices: tuple[int, ...]
    quantized: tuple[float, ...]
    answer: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Probed:
    """One side: its facts, and its probes in the order of the prompts."""

    facts: Facts
    probes: tuple[Probe, ...]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far served may be from trained, in the figures of `figures`.

    The most `distance` and `rounding`, the least `effect`, `choices` and `answers`, and where `strength` is to be.
    """

    distance: float
    effect: float
    strength: tuple[float, float]
    choices: float
    answers: float
    rounding: float


FLOAT32 = Tolerance(distance=0.01, effect=0.999, strength=(0.98, 1.02), choices=0.95, answers=0.95, rounding=0.01)
BFLOAT16 = Tolerance(distance=0.05, effect=0.95, strength=(0.9, 1.1), choices=0.9, answers=0.7, rounding=0.05)
NF4 = 0.7
"""`rounding` of NF4.

Measured on SmolLM2-135M, float32: an honest version is at distance 0.0000, strength 1.000; the nearest planted faults
are bfloat16 (0.034, 0.92), half the alpha (0.112, 0.51) and another system message (0.139, 0.90). bfloat16 is 0.034
from float32: two such sides, on GPUs of two kinds, get 0.05. Two attention kernels in bfloat16 were 0.037 apart, with
a cosine of 0.975; and answers of one kernel, read alone and in a batch, agreed to 0.92: one of four may leave the
other at two tokens that are as likely as each other. NF4 is 0.38 from the whole base in so small a model.
"""

ACTIVE = 0.001
"""The least `active`."""

SAME = {
    "base": "give the version the base that the adapter was trained on",
    "base_digest": "put the base's original files back, or fine-tune anew",
    "weights": "another adapter, or none, lies at its path: fine-tune anew",
    "lora": "adapter_config.json is not what was trained: fine-tune anew",
    "template": "the version's chat template is another one: pack the tokenizer that the adapter was trained with",
    "tokenizer": "the version's tokenizer is another one: pack the one that the adapter was trained with",
    "end": "answers would not end where the model learned to end them: set the tokenizer's eos_token as in training",
    "dtype": "load the model in the number format of its training, or train on hardware like that which serves it",
}
"""Facts that must be equal, and what to do where one is not."""

NAMES = {"base_digest": "base model's files", "end": "end token", "template": "chat template", "base": "base model"}


@dataclass(frozen=True, slots=True)
class Parity:
    """What differs, a line each; none is parity."""

    differences: tuple[str, ...]
    figures: dict[str, float]
    tolerance: Tolerance
    probes: int
    trained: Facts
    served: Facts

    def __str__(self) -> str:
        found = ", ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        return f"{'passed' if not self.differences else 'not passed'}: {found} ({self.probes} probes)"


def probe_order(dev: PairSet) -> tuple[Pair, ...]:
    """The pairs as they are to be asked: the shortest ones first, which fit into every context and cost least."""
    return tuple(sorted(dev, key=lambda pair: (len(pair.instruction) + len(pair.response), pair.id)))


def compare(trained: Probed, served: Probed) -> Parity:
    """Every difference between two sides that were asked the same prompts, and how far they are apart."""
    tolerance = tolerated(trained.facts, served.facts)
    found = figures(trained, served)
    lines = [*_facts(trained.facts, served.facts), *_prompts(trained, served), *_beyond(found, tolerance)]
    return Parity(tuple(lines), found, tolerance, len(served.probes), trained.facts, served.facts)


def tolerated(trained: Facts, served: Facts) -> Tolerance:
    """By number format and quantization."""
    found = FLOAT32 if trained.dtype == "float32" else BFLOAT16
    return found if trained.quantization == served.quantization else replace(found, rounding=NF4)


def figures(trained: Probed, served: Probed) -> dict[str, float]:
    """How far two sides are apart.

    Returns:
        `distance`: total variation of the first token's distributions, mean over the probes, 0 to 1 (all tokens that
        are not in `first` count as one). `effect`: the cosine between what the adapter changes in either side's
        log-probabilities. `strength`: how much of that change is there; 1 is all of it, 0 none. `choices`: the share
        of likeliest tokens that are the same. `answers`: how much of the trained one's greedy answer, as far as it is
        known, the served one's begins with. `rounding`: `distance` between the served model and the
        trained one on its quantized base. `active`: `distance` between the served model with and without its adapter;
        `trained_active`: that of the trained one.
    """
    pairs = list(zip(trained.probes, served.probes, strict=True))
    change, there = (np.concatenate([_change(probe) for probe in side.probes]) for side in (trained, served))
    shared, length = float(change @ there), float(change @ change)
    return {
        "distance": _mean([_distance(ours.on, theirs.on) for ours, theirs in pairs]),
        "effect": shared / max(float(np.sqrt(length * float(there @ there))), 1e-12),
        "strength": shared / max(length, 1e-12),
        "choices": _mean([_choices(ours.choices, theirs.choices) for ours, theirs in pairs]),
        "answers": _mean([_same(ours, theirs) for ours, theirs in pairs]),
        "rounding": _mean([_distance(ours.quantized, theirs.on) for ours, theirs in pairs]),
        "active": _mean([_distance(probe.on, probe.off) for probe in served.probes]),
        "trained_active": _mean([_distance(probe.on, probe.off) for probe in trained.probes]),
    }


def _facts(trained: Facts, served: Facts) -> Iterator[str]:
    ours, theirs = asdict(trained), asdict(served)
    for name, advice in SAME.items():
        if ours[name] != theirs[name]:
            yield f"{NAMES.get(name, name)}: trained {ours[name]}, served {theirs[name]}; {advice}"


def _prompts(trained: Probed, served: Probed) -> Iterator[str]:
    """Another template, system message or tokenizer is seen in the ids, whatever the facts say."""
    pairs = zip(trained.probes, served.probes, strict=True)
    others = [(ours.prompt, theirs.prompt) for ours, theirs in pairs if ours.prompt != theirs.prompt]
    if others:
        ours, theirs = others[0]
        same = sum(1 for _ in takewhile(_equal, zip(ours, theirs, strict=False)))
        yield (
            f"prompts: {len(others)} of {len(served.probes)} are read as other tokens, the first from token {same} "
            f"on (trained {len(ours)} tokens, served {len(theirs)}); template, system message or tokenizer differ"
        )


def _beyond(found: dict[str, float], tolerance: Tolerance) -> Iterator[str]:
    if not np.isfinite(list(found.values())).all():
        yield (
            "figures: the models' probabilities are no numbers; the training diverged (lower "
            "finetune.learning_rate), or the adapter's weights do not fit the model"
        )
        return
    low, high = tolerance.strength
    if found["distance"] > tolerance.distance:
        yield (
            f"distance: the first tokens' probabilities differ by {found['distance']:.3f}, at most "
            f"{tolerance.distance:g}; the weights or the prompts are not those of the training"
        )
    if found["rounding"] > tolerance.rounding:
        yield (
            f"rounding: on the training's quantized base the first tokens' probabilities are {found['rounding']:.3f} "
            f"away, at most {tolerance.rounding:g}; train with finetune.quantization none, or on a larger base"
        )
    if found["active"] < ACTIVE:
        yield (
            f"active: the adapter changes the answers' first tokens by {found['active']:.4f} (as trained "
            f"{found['trained_active']:.4f}), at least {ACTIVE:g}; it is not loaded, or it has learned nothing"
        )
    if not (found["effect"] >= tolerance.effect and low <= found["strength"] <= high):
        yield (
            f"effect: the adapter changes {found['strength']:.2f} times what it changed when trained (tolerated "
            f"{low:g} to {high:g}), with a cosine of {found['effect']:.3f} (at least {tolerance.effect:g}); its "
            "weights, its alpha or its base are others"
        )
    if found["choices"] < tolerance.choices:
        yield (
            f"choices: {found['choices']:.2f} of the likeliest tokens along the dev responses are the same, at least "
            f"{tolerance.choices:g}; the weights or the prompts are not those of the training"
        )
    if found["answers"] < tolerance.answers:
        yield (
            f"answers: {found['answers']:.2f} of the trained model's greedy answers is found again, at least "
            f"{tolerance.answers:g}; the weights, the prompts or the end token are not those of the training"
        )


def _change(probe: Probe) -> NDArray[np.float64]:
    """What the adapter adds to the log-probabilities; what it adds to all of them is the softmax's doing."""
    change = np.asarray(probe.on) - np.asarray(probe.off)
    centred: NDArray[np.float64] = change - change.mean()
    return centred


def _distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    left, right = np.exp(one), np.exp(other)
    return float(np.abs(left - right).sum() + abs(left.sum() - right.sum())) / 2


def _choices(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    return _mean([float(ours == theirs) for ours, theirs in zip(one, other, strict=True)])


def _same(ours: Probe, theirs: Probe) -> float:
    """An answer that does not end where the trained model's ends may go on with what is no text."""
    shared = sum(1 for _ in takewhile(_equal, zip(ours.answer, theirs.answer, strict=False)))
    if ours.ended:
        return float(theirs.ended and ours.answer == theirs.answer) or shared / (
            1 + len(ours.answer) + len(theirs.answer)
        )
    return shared / len(ours.answer) if ours.answer else 1.0


def _equal(both: tuple[object, object]) -> bool:
    return both[0] == both[1]


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
