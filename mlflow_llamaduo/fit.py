"""Does it fit? Memory, minutes and dollars of training, answering and serving, place by place, without weights."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import fmean, median, pstdev

from mlflow_llamaduo.config import Baselines, FineTune, Project
from mlflow_llamaduo.core.gpus import GPUS
from mlflow_llamaduo.core.memory import PROCESS_BYTES, Batch, Memory, answering, training
from mlflow_llamaduo.core.pace import Answers, answer_seconds, training_flops, training_seconds
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.core.shape import Shape
from mlflow_llamaduo.fit_places import (
    Place,
    answering_place,
    answering_usd,
    on,
    serving_places,
    training_places,
    training_usd,
)

CHARACTERS_A_TOKEN = 4
TEMPLATE_TOKENS = 32
"""What a chat template and its system message add to a row: an assumption."""
SPREAD = 3.0
"""Standard deviations over its mean that a batch is taken to have: rows are drawn at random, one in 700 has more."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One stage in one place. Minutes and dollars are of all rounds; None where nothing says how long it goes on.

    `at` says for what the memory is reckoned, `longest` is the longest row in tokens for which it suffices (None: as
    long as is configured), `remedy` the nearest way out where it does not fit.
    """

    stage: str
    place: Place
    at: str
    memory: Memory
    longest: int | None = None
    minutes: float | None = None
    usd: float | None = None
    remedy: str = ""

    @property
    def fits(self) -> bool:
        """Whether what is needed is there."""
        return self.memory.total <= self.place.there


@dataclass(frozen=True, slots=True)
class Rows:
    """Lengths of rows in tokens, prompt and response: mean, spread, the longest, and the share that is learned."""

    mean: float
    spread: float
    longest: int
    learned: float

    def batch(self, size: int) -> Batch:
        """A large batch of `size` rows that are drawn at random."""
        tokens = math.ceil(min(size * self.longest, size * self.mean + SPREAD * self.spread * math.sqrt(size)))
        return Batch(tokens, math.ceil(self.learned * tokens))


def fits(project: Project, parts: Split, shape: Shape) -> tuple[Fit, ...]:
    """Training where it is configured and on A100s, answering the test prompts, and serving, by default on an L4."""
    rows = rows_of(parts.train, most=project.finetune.max_length)
    found = [_trains(project, len(parts.train), rows, shape, place) for place in training_places(project)]
    asked = rows_of(parts.test, most=shape.positions)
    prompt = math.ceil(asked.longest * (1 - asked.learned))
    found.append(_answers(project, parts, prompt, shape))
    return (*found, *(_serves(project, prompt, shape, place) for place in serving_places(project)))


def rows_of(pairs: Iterable[Pair], *, most: int) -> Rows:
    """Lengths at four characters a token, each `most` at the longest."""
    texts = [(len(pair.instruction), len(pair.response)) for pair in pairs]
    lengths = [min(most, TEMPLATE_TOKENS + -(-(p + r) // CHARACTERS_A_TOKEN)) for p, r in texts]
    learned = sum(min(most, 1 + -(-r // CHARACTERS_A_TOKEN)) for _, r in texts)
    return Rows(fmean(lengths), pstdev(lengths), max(lengths), min(1.0, learned / sum(lengths)))


def _trains(project: Project, count: int, rows: Rows, shape: Shape, place: Place) -> Fit:
    recipe = project.finetune.at(count)

    def needed(batch: Batch, where: Place = place) -> Memory:
        return training(
            shape,
            batch,
            rank=recipe.lora_rank,
            quantized=recipe.quantization == "nf4",
            device=where.device,
        )

    def at(length: int, size: int = recipe.batch_size, where: Place = place) -> bool:
        batch = Batch(size * length, math.ceil(rows.learned * size * length))
        return needed(batch, where).total <= where.there

    batch = rows.batch(recipe.batch_size)
    longest = _longest(at, recipe.max_length)
    minutes = _training_minutes(project, count, rows, shape, place)
    return Fit(
        "train",
        place,
        f"{recipe.batch_size} rows, {batch.tokens} tokens",
        needed(batch),
        None if longest == recipe.max_length else longest,
        minutes,
        training_usd(project, place, minutes),
        "" if needed(batch).total <= place.there else _remedy(at, rows, recipe, place),
    )


def _longest(at: Callable[[int], bool], most: int) -> int:
    """The longest row for which `at` holds, 0 if for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if at(middle) else (low, middle - 1)
    return low


def _remedy(at: Callable[..., bool], rows: Rows, recipe: FineTune, place: Place) -> str:
    """A smaller batch with as many rows a step, another GPU, or another base model: the first that is enough."""
    length = rows.longest
    for size in range(recipe.batch_size - 1, 0, -1):
        if recipe.batch_size % size == 0 and at(length, size):
            more = recipe.gradient_accumulation * (recipe.batch_size // size)
            return f"--set finetune.batch_size={size} --set finetune.gradient_accumulation={more}"
    larger = [
        other for other in GPUS.values() if other.bf16 and (other.memory > place.there or place.device == "cpu")
    ]
    for other in larger:
        if at(length, recipe.batch_size, on(other)):
            return f"train on {other.name} (finetune.accelerator_type)"
    short = _longest(lambda tokens: at(tokens, 1), recipe.max_length)
    return f"--set finetune.batch_size=1 --set finetune.max_length={short}" if short >= 64 else "a smaller base model"


def _training_minutes(project: Project, count: int, rows: Rows, shape: Shape, place: Place) -> float:
    """Of all rounds, if all pairs that are asked for are kept."""
    seconds = 0.0
    for number in range(project.limits.rounds):
        count += project.synthesis.rows(number) if number else 0
        recipe = project.finetune.at(count)
        data = Batch(round(count * rows.mean), round(count * rows.mean * rows.learned))
        flops = training_flops(shape, data, length=rows.mean, rank=recipe.lora_rank, device=place.device)
        seconds += training_seconds(recipe.epochs * flops, place.power, workers=recipe.workers)
    return seconds / 60


def _answers(project: Project, parts: Split, prompt: int, shape: Shape) -> Fit:
    """Memory at the longest prompt, examples before it; minutes if every answer is as long as it may be."""
    settings, place = project.inference, answering_place(project)
    longest = min(shape.positions, prompt + shots(project, parts.train))
    most = max(1, len(parts.test) * settings.responses_per_prompt)
    rows = min(settings.batch_size, most)
    memory = answering(
        shape,
        prompt=longest,
        new=settings.max_new_tokens,
        rows=rows,
        rank=project.finetune.lora_rank,
        device=place.device,
        samples=settings.responses_per_prompt,
    )
    if settings.engine == "vllm" and place.gpu:  # a process for each GPU that it spreads over
        memory = replace(memory, rest=memory.rest + (settings.gpus - 1) * PROCESS_BYTES[place.device])

    def minutes(prompts: int, length: int) -> float:
        asked = Answers(prompts * settings.responses_per_prompt, length, settings.max_new_tokens, rows)
        return answer_seconds(shape, asked, place.power, engine=settings.engine, actors=settings.actors) / 60

    rounds, baselines = project.limits.rounds, project.baseline_names
    turns = rounds + sum(name in ("base", "champion") for name in baselines)
    taken = turns * minutes(len(parts.test), prompt) + (rounds - 1) * minutes(len(parts.dev), prompt)
    if "few_shot" in baselines:
        taken += minutes(len(parts.test), longest)
    at = f"{rows} x {longest} + {settings.max_new_tokens} tokens"
    fit = Fit("answer", place, at, memory, None, taken, answering_usd(project, taken))
    return _with_way_out(fit, "inference.batch_size", rows)


def shots(project: Project, train: Iterable[Pair]) -> int:
    """Tokens of the examples before a prompt of the few-shot baseline, rows of the usual length; 0 if none."""
    if "few_shot" not in project.baseline_names:
        return 0
    count = project.baselines.few_shot or Baselines().few_shot
    usual = median(len(pair.instruction) + len(pair.response) for pair in train) / CHARACTERS_A_TOKEN
    return count * (TEMPLATE_TOKENS + math.ceil(usual))


def _serves(project: Project, prompt: int, shape: Shape, place: Place) -> Fit:
    new, together = project.serving.max_new_tokens, project.serving.batch_size
    memory = answering(
        shape, prompt=prompt, new=new, rows=together, rank=project.finetune.lora_rank, device=place.device
    )
    fit = Fit("serve", place, f"{together} x {prompt} + {new} tokens", memory)
    return _with_way_out(fit, "serving.batch_size", together)


def _with_way_out(fit: Fit, key: str, value: int) -> Fit:
    """What is nearest where answers do not fit: less of what grows with them, else more memory."""
    if fit.fits:
        return fit
    grows = fit.memory.cache + fit.memory.activations + fit.memory.logits
    if fit.memory.total - grows / 2 <= fit.place.there:
        return _remedied(fit, f"--set {key}={max(1, value // 2)}")
    for other in GPUS.values():
        if other.bf16 and other.memory > fit.place.there and fit.memory.total <= other.memory:
            return _remedied(fit, f"{'serve' if fit.stage == 'serve' else 'answer'} on {other.name}")
    return _remedied(fit, "a smaller base model")


def _remedied(fit: Fit, remedy: str) -> Fit:
    return Fit(fit.stage, fit.place, fit.at, fit.memory, fit.longest, fit.minutes, fit.usd, remedy)
