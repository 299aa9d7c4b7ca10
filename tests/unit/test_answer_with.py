"""The service LLM's own answers: the pair's messages and nothing else, K times, in order."""

from collections.abc import Iterable, Iterator
from typing import cast

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import Message, Pair, PairSet, Response
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from mlflow_llamaduo.synthesis.answer import answer_with
from tests.unit.builders import pair, pairs

CHAT = Pair(
    (
        Message("system", "Be brief."),
        Message("user", "Which town?"),
        Message("assistant", "Arn"),
        Message("user", "?"),
    ),
    "Arn on the Senna",
    "closed_qa",
    "traces",
)


class Backwards:
    """A generator that answers in the opposite order, by the number of the request; some requests fail."""

    def __init__(self, failing: tuple[int, ...] = (), *, cut: bool = False) -> None:
        self.failing = failing
        self.cut = cut
        self.asked: list[Request] = []

    def complete_many(self, requests: Iterable[Request]) -> Iterator[tuple[int, Reply | Failure]]:
        self.asked = list(requests)
        for index in reversed(range(len(self.asked))):
            failed = index in self.failing
            yield index, Failure(f"no {index}") if failed else Reply(f"answer {index}", 9, 10 + index, 0.0, self.cut)


def answering(
    llm: Backwards, prompts: PairSet, samples: int = 2
) -> tuple[tuple[Response, ...], tuple[str, ...], list[int]]:
    ticks: list[int] = []
    responses, failures = answer_with(cast(ServiceLLM, llm), prompts, samples=samples, done=ticks.append)
    return responses, failures, ticks


def test_each_prompt_is_answered_k_times_in_the_order_prompt_sample() -> None:
    prompts = pairs(3)
    responses, failures, ticks = answering(Backwards(), prompts)

    assert [(r.pair_id, r.sample) for r in responses] == [(p.id, sample) for p in prompts for sample in range(2)]
    assert [r.text for r in responses] == [f"answer {number}" for number in range(6)]
    assert [r.completion_tokens for r in responses] == [10, 11, 12, 13, 14, 15]
    assert (failures, ticks) == ((), [1] * 6)


def test_what_is_sent_is_the_pairs_own_conversation_without_schema_or_rules() -> None:
    llm = Backwards()
    (response, _), _, _ = answering(llm, PairSet((CHAT,)))
    messages = tuple({"role": m.role, "content": m.content} for m in CHAT.prompt)

    assert llm.asked == [Request(messages, None, 0), Request(messages, None, 1)]
    assert response == Response(
        CHAT.id, 0, CHAT.instruction, "Arn on the Senna", "answer 0", 10, category="closed_qa", source="traces"
    )


def test_a_failure_is_counted_and_is_no_empty_answer() -> None:
    responses, failures, ticks = answering(Backwards(failing=(0, 3)), pairs(2))

    assert [r.text for r in responses] == ["answer 1", "answer 2"]
    assert [r.sample for r in responses] == [1, 0]
    assert failures == ("no 0", "no 3")
    assert len(ticks) == 4


def test_an_answer_that_was_cut_is_an_answer_as_it_is() -> None:
    responses, failures, _ = answering(Backwards(cut=True), pairs(1))

    assert [r.text for r in responses] == ["answer 0", "answer 1"]
    assert failures == ()


def test_without_prompts_nobody_is_asked() -> None:
    assert answering(Backwards(), PairSet(())) == ((), (), [])


def test_the_offline_teacher_answers_through_the_same_door_and_every_sample_is_a_reply_of_its_own() -> None:
    store = ReplyStore(":memory:")
    llm = ServiceLLM(
        ServiceModel(model="offline/teacher"), store=store, budget=Budget(0.0), purpose=Purpose("run", "answer")
    )
    prompts = PairSet((pair("Arn lies on the Senna. It is old.\n\nOn which river lies Arn?", "the Senna"),))
    responses, failures = answer_with(llm, prompts, samples=3, done=lambda _: None)
    again, _ = answer_with(llm, prompts, samples=3, done=lambda _: None)

    assert [(r.sample, r.text, r.completion_tokens) for r in responses] == [
        (sample, "Arn lies on the Senna.", 5) for sample in range(3)
    ]
    assert (failures, again) == ((), responses)
    assert (store.count("run"), store.spent_usd("run")) == (3, 0)
    store.close()
