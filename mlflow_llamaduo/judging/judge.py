"""Ask the judge M times about every response."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.records import Judgement, Response, Unjudged
from mlflow_llamaduo.judging.prompt import SCHEMA, ask, read
from mlflow_llamaduo.service_llm.exchange import Failure, Request

if TYPE_CHECKING:
    from mlflow_llamaduo.service_llm.client import ServiceLLM


def judge(
    responses: Sequence[Response], *, llm: "ServiceLLM", repeats: int, done: Callable[[int], object]
) -> tuple[Judgement, ...]:
    """Judge each response `repeats` times, in the order response, repeat.

    Args:
        responses: what to judge.
        llm: the judge.
        repeats: M of the paper (10 there).
        done: told 1 for every judging that has ended.

    Raises:
        BudgetError: the next judging would pass the budget.
    """
    asked = [(response, repeat) for response in responses for repeat in range(repeats)]
    requests = (Request(ask(response), SCHEMA, repeat) for response, repeat in asked)
    judged: dict[int, Judgement] = {}
    for index, reply in llm.complete(requests):
        response, repeat = asked[index]
        if isinstance(reply, Failure):
            judged[index] = Unjudged(response.id, llm.model, repeat, reply.reason)
        elif reply.cut:  # mended, a score of 85 that was cut in the middle is an 8
            judged[index] = Unjudged(response.id, llm.model, repeat, "the reply was cut at service_llm.max_tokens")
        else:
            judged[index] = read(reply.text, response_id=response.id, judge=llm.model, repeat=repeat)
        done(1)
    return tuple(judged[index] for index in range(len(asked)))
