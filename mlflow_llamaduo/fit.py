"""Does it fit? Memory, minutes and dollars of training, answering and serving, place by place, without weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlflow_llamaduo.config import FineTune, Project
from mlflow_llamaduo.core.gpus import GPUS
from mlflow_llamaduo.core.memory import PROCESS_BYTES, Batch, Memory, answering, training
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.core.shape import Shape
from mlflow_llamaduo.fit_places import (
    Place,
    answering_machine,
    answering_place,
    on,
    serving_places,
    training_machine,
    training_places,
)
from mlflow_llamaduo.fit_time import Rows, answering_minutes, longest_prompt, rows_of, training_minutes


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


def fits(project: Project, parts: Split, shape: Shape) -> tuple[Fit, ...]:
    """Training where it is configured and on A100s, answering the test prompts, and serving, by default on an L4."""
    prompt, longest = longest_prompt(project, parts, shape)
    found = [_trains(project, parts, shape, place) for place in training_places(project)]
    found.append(_answers(project, parts, longest, shape))
    return (*found, *(_serves(project, prompt, shape, place) for place in serving_places(project)))


def _trains(project: Project, parts: Split, shape: Shape, place: Place) -> Fit:
    recipe = project.finetune.at(len(parts.train))
    rows = rows_of(parts.train, most=recipe.max_length)

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
    minutes = sum(training_minutes(project, parts, shape, place))
    return Fit(
        "train",
        place,
        f"{recipe.batch_size} rows, {batch.tokens} tokens",
        needed(batch),
        None if longest == recipe.max_length else longest,
        minutes,
        training_machine(project, place).usd(60 * minutes),
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


def _answers(project: Project, parts: Split, longest: int, shape: Shape) -> Fit:
    """Memory at the longest prompt, examples before it; minutes if every answer is as long as it may be."""
    settings, place = project.inference, answering_place(project)
    rows = min(settings.batch_size, max(1, len(parts.test) * settings.responses_per_prompt))
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
    taken = sum(answering_minutes(project, parts, shape, place).values())
    at = f"{rows} x {longest} + {settings.max_new_tokens} tokens"
    fit = Fit("answer", place, at, memory, None, taken, answering_machine(project).usd(60 * taken))
    return _with_way_out(fit, "inference.batch_size", rows)


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
