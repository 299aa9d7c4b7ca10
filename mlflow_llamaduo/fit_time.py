"""How long training and answering take, round by round, and what that costs: the plan of our own machines."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean, median, pstdev

from mlflow_llamaduo.config import Baselines, Project
from mlflow_llamaduo.core.ledger import Dollars, Planned
from mlflow_llamaduo.core.memory import Batch
from mlflow_llamaduo.core.pace import Answers, answer_seconds, training_flops, training_seconds
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.core.shape import Shape
from mlflow_llamaduo.fit_places import Place, answering_machine, answering_place, training_machine, training_places
from mlflow_llamaduo.service_llm.work import Machine

CHARACTERS_A_TOKEN = 4
TEMPLATE_TOKENS = 32
"""What a chat template and its system message add to a row: an assumption."""
SPREAD = 3.0
"""Standard deviations over its mean that a batch is taken to have: rows are drawn at random, one in 700 has more."""
OFF = (0.3, 2.0)
"""How far off minutes may be: training may stop early, and the shares of a GPU's peak are assumptions."""


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


def rows_of(pairs: Iterable[Pair], *, most: int) -> Rows:
    """Lengths at four characters a token, each `most` at the longest."""
    texts = [(len(pair.instruction), len(pair.response)) for pair in pairs]
    lengths = [min(most, TEMPLATE_TOKENS + -(-(p + r) // CHARACTERS_A_TOKEN)) for p, r in texts]
    learned = sum(min(most, 1 + -(-r // CHARACTERS_A_TOKEN)) for _, r in texts)
    return Rows(fmean(lengths), pstdev(lengths), max(lengths), min(1.0, learned / sum(lengths)))


def shots(project: Project, train: Iterable[Pair]) -> int:
    """Tokens of the examples before a prompt of the few-shot baseline, rows of the usual length; 0 if none."""
    if "few_shot" not in project.baseline_names:
        return 0
    count = project.baselines.few_shot or Baselines().few_shot
    usual = median(len(pair.instruction) + len(pair.response) for pair in train) / CHARACTERS_A_TOKEN
    return count * (TEMPLATE_TOKENS + math.ceil(usual))


def longest_prompt(project: Project, parts: Split, shape: Shape) -> tuple[int, int]:
    """Tokens of the longest test prompt, alone and after the few-shot baseline's examples."""
    asked = rows_of(parts.test, most=shape.positions)
    alone = math.ceil(asked.longest * (1 - asked.learned))
    return alone, min(shape.positions, alone + shots(project, parts.train))


def training_minutes(project: Project, parts: Split, shape: Shape, place: Place) -> list[float]:
    """Of each round, if all pairs that are asked for are kept and no training stops early."""
    rows, count, found = rows_of(parts.train, most=project.finetune.max_length), len(parts.train), []
    for number in range(project.limits.rounds):
        count += project.synthesis.rows(number) if number else 0
        recipe = project.finetune.at(count)
        data = Batch(round(count * rows.mean), round(count * rows.mean * rows.learned))
        flops = training_flops(shape, data, length=rows.mean, rank=recipe.lora_rank, device=place.device)
        found.append(training_seconds(recipe.epochs * flops, place.power, workers=recipe.workers) / 60)
    return found


def answering_minutes(project: Project, parts: Split, shape: Shape, place: Place) -> dict[str, float]:
    """Of each round and baseline, if every answer is as long as it may be.

    A round that grows asks the last adapter the dev prompts first.
    """
    settings, (alone, after) = project.inference, longest_prompt(project, parts, shape)
    rows = min(settings.batch_size, max(1, len(parts.test) * settings.responses_per_prompt))

    def minutes(prompts: int, length: int) -> float:
        asked = Answers(prompts * settings.responses_per_prompt, length, settings.max_new_tokens, rows)
        return answer_seconds(shape, asked, place.power, engine=settings.engine, actors=settings.actors) / 60

    test = minutes(len(parts.test), alone)
    found = {name: test for name in project.baseline_names if name in ("base", "champion")}
    if "few_shot" in project.baseline_names:
        found["few_shot"] = minutes(len(parts.test), after)
    grown = minutes(len(parts.dev), alone)
    return found | {f"round {n}": test + (grown if n else 0.0) for n in range(project.limits.rounds)}


def plan_machines(project: Project, parts: Split, shape: Shape) -> Iterator[Planned]:
    """Minutes and dollars of every stage that our own machines work on, if all rounds are run."""
    trains, answers = training_machine(project), answering_machine(project)
    answering = answering_minutes(project, parts, shape, answering_place(project))
    training = training_minutes(project, parts, shape, training_places(project)[0])
    for where, minutes in answering.items():
        if where.startswith("round "):
            yield _planned(f"{where}: train", trains, training[int(where.removeprefix("round "))])
        yield _planned(f"{where}: infer", answers, minutes)


def _planned(stage: str, machine: Machine, minutes: float) -> Planned:
    usd = machine.usd(60 * minutes)
    low, high = OFF
    return Planned(stage, machine.name, 0, 0, 0, Dollars(low * usd, usd, high * usd), minutes)
