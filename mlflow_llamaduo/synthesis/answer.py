"""The service LLM's own answers to prompts: what the local model's are measured beside.

The generator is asked as the local model is: the pair's own messages, a plain chat, nothing of ours around them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.records import Pair, PairSet, Response
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request

if TYPE_CHECKING:
    from mlflow_llamaduo.service_llm.client import ServiceLLM


def answer_with(
    llm: "ServiceLLM", prompts: PairSet, *, samples: int, done: Callable[[int], object]
) -> tuple[tuple[Response, ...], tuple[str, ...]]:
    """`samples` answers to each prompt, in the order prompt, sample; and the reasons of those that were not given.

    A reply that was cut at max_tokens of the generator is an answer as it is: a local model's is cut as well.

    Args:
        llm: the generator.
        prompts: the pairs whose prompts are asked; their responses are the references.
        samples: K of the paper.
        done: told 1 for every answer that has ended, given or not.

    Returns:
        Responses, and the reasons of the failures in the same order. There is no response in place of a failure: an
        empty one would be judged, as an answer that the service LLM never gave.

    Raises:
        BudgetError: the next answer would pass the budget.
    """
    requests = (Request(_chat(pair), repeat=sample) for pair in prompts for sample in range(samples))
    replies: dict[int, Reply | Failure] = {}
    for index, reply in llm.complete_many(requests):
        replies[index] = reply
        done(1)
    responses: list[Response] = []
    failures: list[str] = []
    for index in range(len(prompts) * samples):
        number, sample = divmod(index, samples)
        reply = replies[index]
        if isinstance(reply, Failure):
            failures.append(reply.reason)
        else:
            responses.append(_response(prompts.pairs[number], sample, reply))
    return tuple(responses), tuple(failures)


def _chat(pair: Pair) -> tuple[dict[str, str], ...]:
    return tuple({"role": message.role, "content": message.content} for message in pair.prompt)


def _response(pair: Pair, sample: int, reply: Reply) -> Response:
    return Response(
        pair.id,
        sample,
        pair.instruction,
        pair.response,
        reply.text,
        completion_tokens=reply.output_tokens,
        category=pair.category,
        source=pair.source,
    )
