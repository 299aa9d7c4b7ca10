"""What a run will ask for, told before anything is spent."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.judging import prompt as judging_prompt
from mlflow_llamaduo.service_llm.terms import price
from mlflow_llamaduo.synthesis import prompt as synthesis_prompt

CHARACTERS_A_TOKEN = 4
VERDICT_TOKENS = 90
"""An assumption: two scores with a sentence each. A judge that writes more costs more."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage of one round: calls to the service LLM, tokens read and written, dollars."""

    stage: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float


def plan(project: Project, parts: Split) -> tuple[Planned, ...]:
    """Calls, tokens and dollars of every stage that asks the service LLM, if all rounds are run.

    Tokens are estimated at four characters each from the coverage pairs; a response is taken to be as long as
    its reference.

    Raises:
        ConfigError: the price of a model is not known.
    """
    judged = len(parts.test) * project.inference.responses_per_prompt * project.judging.repeats
    pair = _mean_tokens(parts.train)
    answer = _mean([len(p.response) for p in parts.test]) // CHARACTERS_A_TOKEN
    verdict_input = len(judging_prompt.SYSTEM) // CHARACTERS_A_TOKEN + _mean_tokens(parts.test) + answer
    calls = -(-project.synthesis.rows_per_round // project.synthesis.pairs_per_call)
    synthesis_input = len(synthesis_prompt.SYSTEM) // CHARACTERS_A_TOKEN + pair
    written = project.synthesis.pairs_per_call * pair

    planned = [_planned(project, "base: judge", project.service_llm.judge, judged, verdict_input, VERDICT_TOKENS)]
    for number in range(project.limits.rounds):
        if number:
            planned.append(
                _planned(
                    project,
                    f"round {number}: synthesize",
                    project.service_llm.generator,
                    calls,
                    synthesis_input,
                    written,
                )
            )
        planned.append(
            _planned(
                project, f"round {number}: judge", project.service_llm.judge, judged, verdict_input, VERDICT_TOKENS
            )
        )
    return tuple(planned)


def _planned(project: Project, stage: str, model: str, calls: int, read: int, written: int) -> Planned:
    input_usd, output_usd = price(model, project.service_llm)
    return Planned(
        stage, model, calls, calls * read, calls * written, calls * (read * input_usd + written * output_usd) / 1e6
    )


def _mean_tokens(pairs: Iterable[Pair]) -> int:
    return _mean([len(p.instruction) + len(p.response) for p in pairs]) // CHARACTERS_A_TOKEN


def _mean(lengths: list[int]) -> int:
    return sum(lengths) // len(lengths)
