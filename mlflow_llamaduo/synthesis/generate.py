"""Ask the service LLM for pairs like the train pairs."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.records import Pair, PairSet, Rejected, TaskPrompt
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.service_llm.exchange import Failure, Request
from mlflow_llamaduo.synthesis.prompt import GENERAL, SCHEMA, ask, read

if TYPE_CHECKING:
    from mlflow_llamaduo.service_llm.client import ServiceLLM


def synthesize(
    train: PairSet,
    *,
    llm: "ServiceLLM",
    rows: int,
    per_call: int,
    batch: int,
    done: Callable[[int], object],
    prompt: TaskPrompt = GENERAL,
) -> tuple[list[Pair], list[Rejected]]:
    """About `rows` new pairs, `per_call` in each reply, each call with another seed pair.

    Seeds are the human pairs of `train` in an order that depends on `batch` alone, without replacement until
    all have been used. What comes back is not yet curated.

    Args:
        train: seeds are taken from here and from nowhere else.
        llm: the generator.
        rows: how many pairs to ask for.
        per_call: how many pairs a call asks for.
        batch: the round's number; another batch asks for other pairs.
        done: told the number of pairs asked for by every call that has ended.
        prompt: what the generator is told of the task.

    Raises:
        DataError: `train` has no pair that could be an example.
        BudgetError: the next call would pass the budget.
    """
    seeds = [pair for pair in train if not pair.synthetic]
    if not seeds:
        raise DataError("no pair to take as an example: synthesis needs at least one that is not synthetic itself")
    random.Random(batch).shuffle(seeds)  # noqa: S311
    calls = -(-rows // per_call)
    chosen = [seeds[call % len(seeds)] for call in range(calls)]
    requests = (
        Request(ask(seed, count=per_call, batch=batch * calls + call, prompt=prompt), SCHEMA)
        for call, seed in enumerate(chosen)
    )
    replies: dict[int, tuple[list[Pair], list[Rejected]]] = {}
    for index, reply in llm.complete_many(requests):
        if isinstance(reply, Failure):
            replies[index] = [], [Rejected(None, "malformed", reply.reason)]
        else:
            pairs, rejected = read(reply.text, example=chosen[index], source=f"synthetic/{batch}")
            if reply.cut and pairs:  # mended, the last pair of a reply that was cut ends in the middle
                rejected.append(Rejected(pairs.pop(), "malformed", "cut at max_tokens of the generator"))
            replies[index] = pairs, rejected
        done(per_call)
    in_order = [replies[index] for index in range(calls)]
    return [p for pairs, _ in in_order for p in pairs], [r for _, rejected in in_order for r in rejected]
