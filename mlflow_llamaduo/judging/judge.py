"""Ask the judge M times about every response."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.records import Judgement, Response, TaskPrompt, Unjudged
from mlflow_llamaduo.judging.prompt import GENERAL, SCHEMA, ask, read
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request

if TYPE_CHECKING:
    from mlflow_llamaduo.service_llm.client import ServiceLLM


def judge(
    responses: Sequence[Response],
    *,
    llm: "ServiceLLM",
    repeats: int,
    done: Callable[[int], object],
    prompt: TaskPrompt = GENERAL,
) -> tuple[Judgement, ...]:
    """Judge each response `repeats` times, in the order response, repeat.

    Args:
        responses: what to judge.
        llm: the judge.
        repeats: M of the paper (10 there).
        done: told 1 for every judging that has ended.
        prompt: what the judge is told of the task.

    Raises:
        BudgetError: the next judging would pass the budget.
    """
    judged = [own for _, own in judge_each(responses, llm=llm, repeats=repeats, done=done, prompt=prompt)]
    return tuple(judgement for own in judged for judgement in own)


def judge_each(
    responses: Iterable[Response],
    *,
    llm: "ServiceLLM",
    repeats: int,
    done: Callable[[int], object],
    prompt: TaskPrompt = GENERAL,
) -> Iterator[tuple[Response, tuple[Judgement, ...]]]:
    """Each response with its judgements, in the order of the responses, as soon as all before it are judged.

    Responses are taken as places come free: many of them need not be in memory together.
    """
    open_: dict[int, Response] = {}
    judged: dict[int, dict[int, Judgement]] = {}
    first = 0

    def requests() -> Iterator[Request]:
        for number, response in enumerate(responses):
            open_[number], judged[number] = response, {}
            for repeat in range(repeats):
                yield Request(ask(response, prompt), SCHEMA, repeat)

    for index, answer in llm.complete_many(requests()):
        number, repeat = divmod(index, repeats)
        judged[number][repeat] = _judgement(answer, open_[number], llm.model, repeat)
        done(1)
        while first in judged and len(judged[first]) == repeats:
            own = judged.pop(first)
            yield open_.pop(first), tuple(own[repeat] for repeat in range(repeats))
            first += 1


def _judgement(answer: Reply | Failure, response: Response, model: str, repeat: int) -> Judgement:
    if isinstance(answer, Failure):
        return Unjudged(response.id, model, repeat, answer.reason)
    if answer.cut:  # mended, a score of 85 that was cut in the middle is an 8
        return Unjudged(response.id, model, repeat, "the reply was cut at max_tokens of the judge")
    return read(answer.text, response_id=response.id, judge=model, repeat=repeat)
