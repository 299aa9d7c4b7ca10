"""Ask the service LLM for pairs like the train pairs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.records import Pair, Rejected, TaskPrompt
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from mlflow_llamaduo.synthesis.prompt import GENERAL, SCHEMA, ask, read
from mlflow_llamaduo.synthesis.screen import Screen

if TYPE_CHECKING:
    from mlflow_llamaduo.service_llm.client import ServiceLLM


def synthesize(
    examples: Sequence[Pair],
    *,
    llm: "ServiceLLM",
    per_call: int,
    batch: int,
    screen: Screen,
    done: Callable[[int], object],
    prompt: TaskPrompt = GENERAL,
) -> tuple[list[Pair], list[Rejected]]:
    """`per_call` new pairs for each example, as far as they are usable; see `seeds.draw` for the examples.

    Args:
        examples: one for each call.
        llm: the generator.
        per_call: how many pairs a call asks for.
        batch: the round's number; another batch asks for other pairs.
        screen: what the new pairs are held against.
        done: told the number of pairs asked for by every call that has ended.
        prompt: what the generator is told of the task.

    Returns:
        The pairs, not yet curated, and what was rejected, in the order of the examples.

    Raises:
        BudgetError: the next call would pass the budget.
    """
    requests = (
        Request(ask(example, count=per_call, batch=batch * len(examples) + call, prompt=prompt), SCHEMA)
        for call, example in enumerate(examples)
    )
    replies: dict[int, tuple[list[Pair], list[Rejected]]] = {}
    for index, reply in llm.complete_many(requests):
        replies[index] = _read(reply, examples[index], screen, f"synthetic/{batch}")
        done(per_call)
    in_order = [replies[index] for index in range(len(examples))]
    return [p for pairs, _ in in_order for p in pairs], [r for _, rejected in in_order for r in rejected]


def _read(reply: Reply | Failure, example: Pair, screen: Screen, source: str) -> tuple[list[Pair], list[Rejected]]:
    if isinstance(reply, Failure):
        return [], [Rejected(None, "malformed", reply.reason)]
    pairs, rejected = read(reply.text, example=example, source=source)
    if reply.cut and pairs:  # mended, the last pair of a reply that was cut ends in the middle
        rejected.append(Rejected(pairs.pop(), "malformed", "cut at max_tokens of the generator"))
    wanted = []
    for pair in pairs:
        if why := screen.objection(pair, example):
            rejected.append(Rejected(pair, *why, partner=example.id if why[0] == "copy_of_example" else ""))
        else:
            wanted.append(pair)
    return wanted, rejected
