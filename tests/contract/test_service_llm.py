"""The same assertions on the offline stand-ins and on an OpenAI-compatible server over real HTTP."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import Judgement, Message, Pair, PairSet, Response, TaskPrompt, Verdict
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.judging import judge
from mlflow_llamaduo.judging.pairwise import compare
from mlflow_llamaduo.service_llm.client import Budget, Failure, Purpose, ReplyStore, Request, ServiceLLM
from mlflow_llamaduo.service_llm.offline.answers import answer
from mlflow_llamaduo.service_llm.offline.llm import judge as offline_judge
from mlflow_llamaduo.service_llm.offline.llm import teach
from mlflow_llamaduo.synthesis.answer import answer_with
from mlflow_llamaduo.synthesis.generate import synthesize
from mlflow_llamaduo.synthesis.screen import Screen
from tests.http_double import Listening, QuietHandler

KEY = "sk-planted-0123456789"


class Server(Listening):
    """An OpenAI-compatible server that answers as the stand-ins do, and remembers what it was sent."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.faults: list[int] = []
        outer = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = json.loads(self.body())
                outer.requests.append({**body, "authorization": self.headers["authorization"]})
                status = outer.faults.pop(0) if outer.faults else 200
                answer = outer.answer(body) if status == 200 else {"error": {"message": f"no, {KEY}", "code": status}}
                self.reply(json.dumps(answer).encode(), status, content_type="application/json")

        super().__init__(Handler)
        self.url += "/v1"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        content = body["messages"][-1]["content"]
        if content.startswith("{"):
            asked = json.loads(content)
            text = json.dumps(teach(asked) if "count" in asked else offline_judge(asked))
        else:
            text = answer(content)
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TEST_SERVICE_KEY", KEY)
    server = Server()
    yield server
    server.close()


def over_http(server: Server, store: ReplyStore, *, cap_usd: float = 10.0, retries: int = 0) -> ServiceLLM:
    asked = ServiceModel(
        model="openai/local",
        api_base=server.url,
        api_key_env="TEST_SERVICE_KEY",
        input_usd_per_mtok=1000,
        output_usd_per_mtok=1000,
        max_tokens=200,
        retries=retries,
    )
    return ServiceLLM(asked, store=store, budget=Budget(cap_usd), purpose=Purpose("r", "s"))


def offline(name: str, store: ReplyStore) -> ServiceLLM:
    return ServiceLLM(ServiceModel(model=name), store=store, budget=Budget(0), purpose=Purpose("r", "s"))


@pytest.fixture(params=["offline", "http"])
def llm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceLLM]:
    store = ReplyStore(tmp_path / "replies.sqlite")
    if request.param == "http":
        yield over_http(request.getfixturevalue("server"), store, cap_usd=100)
    else:
        yield offline("offline/judge", store)
    store.close()


QA = TaskPrompt("closed_qa", "Compare.")
RESPONSES = (
    Response("a", 0, "Who built it?", "Anna Berg", "Anna Berg", 3),
    Response("b", 0, "Who built it?", "Anna Berg", "nobody knows", 3),
)


def test_a_judge_gives_every_response_its_verdicts(llm: ServiceLLM) -> None:
    judged = judge(RESPONSES, llm=llm, repeats=2, done=lambda _: None)
    assert [(j.response_id, j.repeat) for j in judged] == [("a/0", 0), ("a/0", 1), ("b/0", 0), ("b/0", 1)]
    assert all(isinstance(j, Verdict) for j in judged)
    right, wrong = judged[0], judged[2]
    assert isinstance(right, Verdict)
    assert isinstance(wrong, Verdict)
    assert (right.precision, right.similarity) == (100, 100)
    assert wrong.precision == 0


def test_a_judge_is_asked_no_more_once_it_is_settled(llm: ServiceLLM) -> None:
    seen: list[int] = []

    def settled(judged: Sequence[Judgement]) -> bool:
        seen.append(len(judged))
        return len(judged) >= 6

    judged = judge(RESPONSES, llm=llm, repeats=10, done=lambda _: None, settled=settled)

    assert seen == [4, 6]
    assert [(j.response_id, j.repeat) for j in judged] == [(r, n) for r in ("a/0", "b/0") for n in range(3)]
    assert llm.meter.calls == 6


def test_asked_again_for_more_a_judge_is_asked_for_the_rest_alone(llm: ServiceLLM) -> None:
    judge(RESPONSES, llm=llm, repeats=10, done=lambda _: None, settled=lambda _: True)
    before = llm.meter.calls
    judge(RESPONSES, llm=llm, repeats=10, done=lambda _: None)

    assert (before, llm.meter.calls) == (4, 20)


def test_two_answers_are_compared_in_both_orders(llm: ServiceLLM) -> None:
    texts = ["nobody knows", "Anna Berg"]
    compared = compare(RESPONSES, texts, opponent="champion", llm=llm, done=lambda _: None, prompt=QA)

    assert [(c.response_id, c.first, c.outcome) for c in compared] == [
        ("a/0", True, "win"),
        ("a/0", False, "win"),
        ("b/0", True, "loss"),
        ("b/0", False, "loss"),
    ]


def test_the_service_llm_answers_prompts_as_they_are(server: Server, tmp_path: Path) -> None:
    prompts = PairSet((Pair((Message("user", "Anna built the mill. Who built the mill?"),), "Anna"),))
    over = over_http(server, ReplyStore(tmp_path / "http.sqlite"), cap_usd=100)
    answered, failed = answer_with(over, prompts, samples=2, done=lambda _: None)
    alone, _ = answer_with(
        offline("offline/teacher", ReplyStore(":memory:")), prompts, samples=2, done=lambda _: None
    )

    assert failed == ()
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Anna built the mill. Who built the mill?"}]
    assert [(r.id, r.text) for r in answered] == [(r.id, r.text) for r in alone]


def test_what_was_answered_once_is_not_asked_again(llm: ServiceLLM) -> None:
    first = judge(RESPONSES, llm=llm, repeats=2, done=lambda _: None)
    spent = llm.spent_usd
    assert judge(RESPONSES, llm=llm, repeats=2, done=lambda _: None) == first
    assert llm.spent_usd == spent


def test_a_generator_writes_the_pairs_that_it_is_asked_for(server: Server, tmp_path: Path) -> None:
    example = Pair((Message("user", "Passage. Question?"),), "Answer", "closed_qa")
    screen = Screen(frozenset(), 10_000)
    over = over_http(server, ReplyStore(tmp_path / "http.sqlite"), cap_usd=100)
    teacher = offline("offline/teacher", ReplyStore(":memory:"))
    prompt = TaskPrompt("closed_qa", "Write pairs.")
    written = [
        synthesize([example] * 2, llm=m, per_call=4, batch=1, screen=screen, done=lambda _: None, prompt=prompt)
        for m in (over, teacher)
    ]
    assert len(written[0][0]) == 8
    assert written[0] == written[1], "the same prompts, parser and grammar give the same pairs over HTTP"


def test_the_request_carries_the_key_and_the_token_limit_and_no_sampling(server: Server, tmp_path: Path) -> None:
    judge(RESPONSES[:1], llm=over_http(server, ReplyStore(tmp_path / "s")), repeats=1, done=lambda _: None)
    (sent,) = server.requests
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["max_tokens"] == 200
    assert not {"temperature", "top_p", "seed"} & set(sent)


def test_dollars_are_those_of_the_usage_that_the_server_counted(server: Server, tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "s")
    judge(RESPONSES, llm=over_http(server, store), repeats=1, done=lambda _: None)
    assert store.spent_usd("r") == pytest.approx(2 * 110 * 1000 / 1e6)


def ask(llm: ServiceLLM) -> Any:
    data = json.dumps({"instruction": "i", "reference": "r", "response": "r"})
    ((_, reply),) = llm.complete_many([Request(({"role": "user", "content": data},))])
    return reply


def test_a_passing_fault_is_tried_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_llamaduo.service_llm.call.BACKOFF_S", 0.01)
    server.faults = [429, 500, 503]
    assert not isinstance(ask(over_http(server, ReplyStore(tmp_path / "s"), retries=3)), Failure)
    assert len(server.requests) == 4


def test_a_lasting_fault_is_a_failure_without_the_key_in_it(server: Server, tmp_path: Path) -> None:
    server.faults = [400]
    store = ReplyStore(tmp_path / "s")
    failure = ask(over_http(server, store, retries=3))
    assert isinstance(failure, Failure)
    assert len(server.requests) == 1
    assert KEY not in failure.reason
    assert store.count("r") == 0


def test_a_refused_key_ends_the_run_and_is_not_shown(server: Server, tmp_path: Path) -> None:
    server.faults = [401]
    with pytest.raises(ConfigError) as caught:
        ask(over_http(server, ReplyStore(tmp_path / "s")))
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_refused_key_costs_one_call_however_many_were_to_be_made(server: Server, tmp_path: Path) -> None:
    server.faults = [401] * 20
    many = [Request(({"role": "user", "content": str(number)},)) for number in range(20)]
    with pytest.raises(ConfigError):
        list(over_http(server, ReplyStore(tmp_path / "s")).complete_many(many))
    assert len(server.requests) == 1
