"""What a run will ask for, told before anything is spent."""

import re
from collections.abc import Callable, Iterable

from mlflow_llamaduo.base_models.shape import find_shape
from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.adaptive import FIRST
from mlflow_llamaduo.core.ledger import Dollars, Planned
from mlflow_llamaduo.core.records import Pair, Response
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.errors import BaseModelError, ConfigError
from mlflow_llamaduo.fit_time import CHARACTERS_A_TOKEN, plan_machines
from mlflow_llamaduo.judging.pairwise import PAIRWISE
from mlflow_llamaduo.judging.prompt import MOST_CHARACTERS
from mlflow_llamaduo.prompts import task_prompts
from mlflow_llamaduo.service_llm.store import Typical
from mlflow_llamaduo.service_llm.terms import BATCH_DISCOUNT, Terms, terms

VERDICT_TOKENS = 90
"""An assumption: two scores with a sentence each. A judge that writes more costs more."""
COMPARED_TOKENS = len(PAIRWISE.text) // CHARACTERS_A_TOKEN
SETTLED = 0.5
"""Share of a round's judgings that are likely to be asked: more than in benchmarks/gate.py, where it is a quarter."""
GUESSED = (0.5, 2.5)
"""How much shorter or longer replies may be than assumed, while none have been seen."""
MEASURED = (0.8, 1.25)
"""The same where replies of this model in this stage are in the store."""
ENOUGH = 20
"""Replies that make a mean worth more than the assumption."""
INPUT = (0.8, 1.3)
"""How far four characters a token are off, either way."""
TOKENS_A_SECOND, FIRST_TOKEN_S = 60.0, 0.5
"""Assumptions about a model's speed, while no call to it has been timed."""

Shares = tuple[float, float]

Seen = Callable[[str, str], Typical | None]
"""Means over the replies that a model has given in a stage (`judge`, `synthesize`) before, or None."""


def plan(project: Project, parts: Split, seen: Seen = lambda model, stage: None) -> tuple[Planned, ...]:
    """Calls, tokens, dollars and minutes of every stage that asks the service LLM, if all rounds are run.

    Tokens are estimated at four characters each from the coverage pairs; a response is taken to be as long as
    its reference. Where replies are in the store, their mean length and time count instead of assumptions.

    Raises:
        ConfigError: the price of a model is not known.
    """
    responses = len(parts.test) * project.inference.responses_per_prompt
    repeats, models = project.judging.repeats, project.service_llm
    answer = _mean([len(p.response) for p in parts.test]) // CHARACTERS_A_TOKEN
    prompt = _mean([len(p.instruction) for p in parts.test]) // CHARACTERS_A_TOKEN
    prompts = task_prompts(project)
    told = len(prompts["judge"].text) // CHARACTERS_A_TOKEN
    pair = _mean_tokens(parts.train)
    read = len(prompts["synthesize"].text) // CHARACTERS_A_TOKEN + pair
    written = project.synthesis.pairs_per_call * pair

    def judge(stage: str, times: int, llm: ServiceModel = models.judge, made: Shares = (1.0, 1.0)) -> Planned:
        known = told + prompt + 2 * answer
        return _planned(f"{stage}: judge", llm, times * responses, known, VERDICT_TOKENS, seen, made=made)

    planned: list[Planned] = []
    for name in project.baseline_names:
        if name == "service_llm":
            planned.append(_planned(f"{name}: answer", models.generator, responses, prompt, answer, seen))
        planned.append(judge(name, repeats if name in project.gated_baselines else min(FIRST, repeats)))
    settles = project.judging.adaptive and not models.judge.batch
    for number in range(project.limits.rounds):
        stage = f"round {number}"
        if number:
            calls = -(-project.synthesis.rows(number) // project.synthesis.pairs_per_call)
            planned.append(_planned(f"{stage}: synthesize", models.generator, calls, read, written, seen))
        for name in project.opponents:
            known = COMPARED_TOKENS + prompt + (2 if name == "reference" else 3) * answer
            planned.append(_planned(f"{stage}: compare", models.judge, 2 * responses, known, VERDICT_TOKENS, seen))
        planned.append(judge(stage, repeats, made=(min(1.0, FIRST / repeats), SETTLED) if settles else (1.0, 1.0)))
        planned += [judge(stage, min(FIRST, repeats), llm) for llm in models.other_judges]
    return tuple(planned)


def plan_all(project: Project, parts: Split, seen: Seen = lambda model, stage: None) -> tuple[Planned, ...]:
    """The same with the stages that our own machines work on, where the base model's sizes can be had.

    Raises:
        ConfigError: the price of a model is not known.
    """
    try:
        shape = find_shape(project.base_model)
    except BaseModelError:  # whoever asks for it is told so: `fit_lines`, `resolve`
        return plan(project, parts, seen)
    return (*plan_machines(project, parts, shape), *plan(project, parts, seen))


def plan_judging(project: Project, responses: Iterable[Response], seen: Seen) -> Planned:
    """The same for the judging of responses that are there already."""
    lengths = [len(r.instruction) + len(r.reference) + min(len(r.text), MOST_CHARACTERS) for r in responses]
    read = (len(task_prompts(project)["judge"].text) + _mean(lengths)) // CHARACTERS_A_TOKEN
    calls = len(lengths) * project.judging.repeats
    return _planned("judge", project.service_llm.judge, calls, read, VERDICT_TOKENS, seen)


def plan_synthesis(project: Project, seeds: Iterable[Pair], seen: Seen) -> Planned:
    """The same for one batch of new pairs."""
    pair = _mean_tokens(seeds)
    calls = -(-project.synthesis.rows_per_round // project.synthesis.pairs_per_call)
    read = len(task_prompts(project)["synthesize"].text) // CHARACTERS_A_TOKEN + pair
    return _planned(
        "synthesize", project.service_llm.generator, calls, read, project.synthesis.pairs_per_call * pair, seen
    )


def total(planned: Iterable[Planned]) -> Dollars:
    """Low: the gate is passed in round 0. Likely: all rounds are run. High: all rounds, and long replies."""
    rows = tuple(planned)
    first = [row for row in rows if not re.match(r"round [1-9]", row.stage)] or rows
    return Dollars(
        sum(row.usd.low for row in first), sum(row.usd.likely for row in rows), sum(r.usd.high for r in rows)
    )


def approve(likely_usd: float, project: Project, *, yes: bool) -> None:
    """Nothing dear begins without a word.

    Raises:
        ConfigError: the likely cost is over `limits.ask_above_usd` and nobody said `--yes`.
    """
    limit = project.limits.ask_above_usd
    if likely_usd > limit and not yes:
        raise ConfigError(
            f"this is likely to cost {likely_usd:.2f} dollars, more than limits.ask_above_usd ({limit:g}); add --yes "
            "to go on (`llamaduo plan` shows what a whole run costs, stage by stage)"
        )


def _planned(
    stage: str, llm: ServiceModel, calls: int, read: int, written: float, seen: Seen, *, made: Shares = (1.0, 1.0)
) -> Planned:
    """One stage; `made` is the share of its calls that is made at least, and likely."""
    known = terms(llm)
    before = seen(known.name, stage.rpartition(": ")[2])
    measured = before is not None and before.replies >= ENOUGH
    if before is not None and measured:
        written = before.output_tokens
    short, long = MEASURED if measured else GUESSED
    share = BATCH_DISCOUNT if llm.batch else 1.0

    def usd(input_share: float, output_share: float) -> float:
        output = min(float(llm.max_tokens), output_share * written)
        return share * calls * known.usd(round(input_share * read), round(output))

    written = min(written, llm.max_tokens)
    return Planned(
        stage,
        known.name,
        calls,
        calls * read,
        round(calls * written),
        Dollars(made[0] * usd(INPUT[0], short), made[1] * usd(1.0, 1.0), usd(INPUT[1], long)),
        None if llm.batch else _minutes(known, llm, calls, read, written, before),
    )


def _minutes(known: Terms, llm: ServiceModel, calls: int, read: int, written: float, before: Typical | None) -> float:
    """The slowest of three: requests a minute, tokens a minute, and so many calls at a time."""
    if known.offline:
        return 0.0
    seconds = before.seconds if before and before.seconds else FIRST_TOKEN_S + written / TOKENS_A_SECOND
    return max(
        calls / known.rpm if known.rpm else 0.0,
        calls * (read + written) / known.tpm if known.tpm else 0.0,
        calls * seconds / 60 / min(llm.concurrency, max(calls, 1)),
    )


def _mean_tokens(pairs: Iterable[Pair]) -> int:
    return _mean([len(p.instruction) + len(p.response) for p in pairs]) // CHARACTERS_A_TOKEN


def _mean(lengths: list[int]) -> int:
    return sum(lengths) // max(1, len(lengths))
