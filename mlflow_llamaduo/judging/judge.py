"""Ask the judge M times about every response, or until its decision is settled."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.adaptive import FIRST
from mlflow_llamaduo.core.records import Judgement, Response, TaskPrompt, Unjudged
from mlflow_llamaduo.judging.prompt import GENERAL, SCHEMA, ask, read
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request

if TYPE_CHECKING:
    from mlflow_llamaduo.service_llm.client import ServiceLLM


Settled = Callable[[Sequence[Judgement]], bool]
"""Whether the judgings there are, as many of each response, decide what they are asked for."""


def judge(
    responses: Sequence[Response],
    *,
    llm: "ServiceLLM",
    repeats: int,
    done: Callable[[int], object],
    prompt: TaskPrompt = GENERAL,
    settled: Settled | None = None,
) -> tuple[Judgement, ...]:
    """Judge each response `repeats` times, in the order response, repeat.

    Args:
        responses: what to judge.
        llm: the judge.
        repeats: M of the paper (10 there).
        done: told 1 for every judging that has ended.
        prompt: what the judge is told of the task.
        settled: asked after every judging of all responses, from the second on; true ends it.

    Raises:
        BudgetError: the next judging would pass the budget.
    """
    judged: list[tuple[Judgement, ...]] = [() for _ in responses]
    first, after = 0, min(FIRST, repeats) if settled else repeats
    while first < after:
        wave = judge_each(responses, llm=llm, repeats=range(first, after), done=done, prompt=prompt)
        judged = [before + own for before, (_, own) in zip(judged, wave, strict=True)]
        first = after
        if settled and after < repeats and not settled([j for own in judged for j in own]):
            after += 1
    return tuple(judgement for own in judged for judgement in own)


def judge_each(
    responses: Iterable[Response],
    *,
    llm: "ServiceLLM",
    repeats: range,
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
            for repeat in repeats:
                yield Request(ask(response, prompt), SCHEMA, repeat)

    for index, answer in llm.complete_many(requests()):
        number, place = divmod(index, len(repeats))
        repeat = repeats[place]
        judged[number][repeat] = _judgement(answer, open_[number], llm.model, repeat)
        done(1)
        while first in judged and len(judged[first]) == len(repeats):
            own = judged.pop(first)
            yield open_.pop(first), tuple(own[repeat] for repeat in repeats)
            first += 1


def _judgement(answer: Reply | Failure, response: Response, model: str, repeat: int) -> Judgement:
    if isinstance(answer, Failure):
        return Unjudged(response.id, model, repeat, answer.reason)
    if answer.cut:  # mended, a score of 85 that was cut in the middle is an 8
        return Unjudged(response.id, model, repeat, "the reply was cut at max_tokens of the judge")
    return read(answer.text, response=response, judge=model, repeat=repeat)
