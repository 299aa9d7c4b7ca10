import json
from collections.abc import Iterable, Iterator
from typing import cast

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import Unjudged, Verdict
from mlflow_llamaduo.judging import judge
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from tests.unit.builders import response


class Backwards:
    """A judge whose replies come in the opposite order: the score is the length of the response."""

    model = "backwards"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def complete_many(self, requests: Iterable[Request]) -> Iterator[tuple[int, Reply | Failure]]:
        self.asked = list(requests)
        for index, request in reversed(list(enumerate(self.asked))):
            text = json.loads(request.messages[-1]["content"])["response"]
            scores = {f"{name}_assessment": {"score": len(text)} for name in ("similarity", "precision")}
            yield index, Failure("no reply") if text == "fail" else Reply(json.dumps(scores), 1, 1, 0.0)


def test_every_response_is_judged_m_times_in_the_order_response_repeat() -> None:
    llm, ticks = Backwards(), [0]
    responses = [response("a" * 30, sample=0), response("b" * 40, sample=1)]
    judged = judge(responses, llm=cast(ServiceLLM, llm), repeats=3, done=ticks.append)

    assert [(j.response_id, j.repeat) for j in judged] == [(f"p0/{k}", m) for k in range(2) for m in range(3)]
    assert [j.precision for j in judged if isinstance(j, Verdict)] == [30, 30, 30, 40, 40, 40]
    assert [request.repeat for request in llm.asked] == [0, 1, 2, 0, 1, 2]
    assert sum(ticks) == 6


def test_a_request_that_failed_is_unjudged_and_spoils_no_other() -> None:
    responses = [response("good", sample=0), response("fail", sample=1)]
    good, failed = judge(responses, llm=cast(ServiceLLM, Backwards()), repeats=1, done=lambda _: None)

    assert isinstance(good, Verdict)
    assert failed == Unjudged("p0/1", "backwards", 0, "no reply")


class Cut:
    """A judge whose replies end in the middle of the score 85."""

    model = "cut"

    def complete_many(self, requests: Iterable[Request]) -> Iterator[tuple[int, Reply | Failure]]:
        text = '{"similarity_assessment": {"score": 90}, "precision_assessment": {"score": 8'
        yield from ((index, Reply(text, 1, 1, 0.0, cut=True)) for index, _ in enumerate(requests))


def test_a_reply_that_was_cut_is_unjudged_and_not_mended_into_a_score() -> None:
    (judged,) = judge([response("a")], llm=cast(ServiceLLM, Cut()), repeats=1, done=lambda _: None)

    assert isinstance(judged, Unjudged)
    assert "max_tokens" in judged.reason


def test_the_offline_judge_judges_through_the_same_door() -> None:
    store = ReplyStore(":memory:")
    llm = ServiceLLM(
        ServiceModel(model="offline/judge"), store=store, budget=Budget(0.0), purpose=Purpose("run", "judge")
    )
    right, wrong = judge([response("Arn"), response("Bel", sample=1)], llm=llm, repeats=1, done=lambda _: None)

    assert isinstance(right, Verdict)
    assert isinstance(wrong, Verdict)
    assert (right.precision, right.similarity) == (100, 100)
    assert (wrong.precision, wrong.similarity) == (0, 0)
    assert right.judge == "offline/judge"
    assert (store.count("run"), store.spent_usd("run")) == (2, 0)
    store.close()
