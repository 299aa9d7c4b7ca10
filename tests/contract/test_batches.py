"""Batch mode over real HTTP, the same assertions on OpenAI's API and on Anthropic's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import BudgetError, ConfigError, StageError
from mlflow_llamaduo.service_llm import batch as batch_module
from mlflow_llamaduo.service_llm import batch_apis, call
from mlflow_llamaduo.service_llm.client import Budget, Failure, Purpose, Reply, ReplyStore, Request, ServiceLLM
from tests.contract.batch_server import BatchServer

KEY = "sk-planted-0123456789"
SCHEMA = {"name": "v", "strict": True, "schema": {"type": "object", "properties": {}, "additionalProperties": False}}


def echo(messages: list[dict[str, Any]]) -> str:
    said = messages[-1]["content"]
    return said if isinstance(said, str) else str(said[0]["text"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "POLL_S", 0.01)
    monkeypatch.setattr(call, "BACKOFF_S", 0.001)
    monkeypatch.setenv("TEST_SERVICE_KEY", KEY)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    server = BatchServer(echo)
    yield server
    server.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    store = ReplyStore(tmp_path / "replies.sqlite")
    yield store
    store.close()


@pytest.fixture(params=["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def service(model: str, server: BatchServer, store: ReplyStore, *, cap_usd: float = 10.0) -> ServiceLLM:
    asked = ServiceModel(
        model=model,
        api_base=f"{server.url}/v1",
        api_key_env="TEST_SERVICE_KEY",
        input_usd_per_mtok=1000,
        output_usd_per_mtok=1000,
        max_tokens=100,
        retries=2,
        batch=True,
    )
    return ServiceLLM(asked, store=store, budget=Budget(cap_usd), purpose=Purpose("run", "judge"))


def questions(count: int, schema: dict[str, Any] | None = None) -> list[Request]:
    system = {"role": "system", "content": "Repeat."}
    return [Request((system, {"role": "user", "content": f"question {n}"}), schema) for n in range(count)]


def texts(answers: Iterator[tuple[int, Reply | Failure]]) -> dict[int, str]:
    return {index: answer.text if isinstance(answer, Reply) else f"! {answer.reason}" for index, answer in answers}


def test_all_requests_go_in_one_batch_at_half_the_price(model: str, server: BatchServer, store: ReplyStore) -> None:
    answered = texts(service(model, server, store).complete_many(questions(5, SCHEMA)))

    assert answered == {n: f"question {n}" for n in range(5)}
    assert len(server.made) == 1
    assert store.spent_usd("run") == pytest.approx(5 * 110 * 1000 / 1e6 / 2)
    assert store.held() == 0


def test_what_is_stored_is_in_no_batch(model: str, server: BatchServer, store: ReplyStore) -> None:
    texts(service(model, server, store).complete_many(questions(3)))
    answered = texts(service(model, server, store).complete_many(questions(5)))

    assert len(answered) == 5
    assert [len(made.asked) for made in server.made] == [3, 2]
    texts(service(model, server, store).complete_many(questions(5)))
    assert len(server.made) == 2


def test_equal_requests_are_one(model: str, server: BatchServer, store: ReplyStore) -> None:
    answered = texts(service(model, server, store).complete_many(questions(1) * 3))

    assert answered == dict.fromkeys(range(3), "question 0")
    assert len(server.made[0].asked) == 1


def test_a_batch_outlives_the_process_that_submitted_it(model: str, server: BatchServer, tmp_path: Path) -> None:
    server.patience = 10**9
    first = ReplyStore(tmp_path / "replies.sqlite")
    answers = service(model, server, first).complete_many(questions(4))
    answers_until = server.made
    with pytest.raises(KeyboardInterrupt):
        _interrupt_after_submission(answers, server)
    first.close()
    assert len(answers_until) == 1

    server.patience = 1
    with ReplyStore(tmp_path / "replies.sqlite") as second:
        assert second.spent_usd("run") == 0
        assert second.batched_usd() > 0, "the batch goes on, and so its dollars stay set aside"
        answered = texts(service(model, server, second).complete_many(questions(4)))
    assert answered == {n: f"question {n}" for n in range(4)}
    assert len(server.made) == 1, "nothing is submitted twice"


def _interrupt_after_submission(answers: Any, server: BatchServer) -> None:
    def look(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        for api in (batch_apis.OpenAIBatches, batch_apis.AnthropicBatches):
            patch.setattr(api, "look", look)
        list(answers)


def die_while_submitting(llm: ServiceLLM) -> None:
    """The server has the batch; its name never reaches the disk."""
    with pytest.MonkeyPatch.context() as patch:
        for api in (batch_apis.OpenAIBatches, batch_apis.AnthropicBatches):
            patch.setattr(api, "submit", _then_die(api.submit))
        with pytest.raises(KeyboardInterrupt):
            list(llm.complete_many(questions(4)))


def _then_die(submit: Any) -> Any:
    async def submitted(*arguments: Any) -> None:
        await submit(*arguments)
        raise KeyboardInterrupt

    return submitted


def test_a_batch_whose_submission_was_not_seen_to_end_is_found_again(
    model: str, server: BatchServer, tmp_path: Path
) -> None:
    first = ReplyStore(tmp_path / "replies.sqlite")
    die_while_submitting(service(model, server, first))
    first.close()

    with ReplyStore(tmp_path / "replies.sqlite") as second:
        answered = texts(service(model, server, second).complete_many(questions(4)))
    assert answered == {n: f"question {n}" for n in range(4)}
    assert len(server.made) == 1


def test_a_submission_that_nobody_answered_is_looked_for_before_it_is_made_again(
    model: str, server: BatchServer, store: ReplyStore
) -> None:
    server.swallow_submission = True
    answered = texts(service(model, server, store).complete_many(questions(4)))

    assert answered == {n: f"question {n}" for n in range(4)}
    assert len(server.made) == 1


def test_what_passes_is_tried_again_and_what_does_not_ends_it(
    model: str, server: BatchServer, store: ReplyStore
) -> None:
    server.faults = [503]
    assert len(texts(service(model, server, store).complete_many(questions(2)))) == 2

    server.faults = [503] * 99
    with pytest.raises(StageError, match="gave up after 3 tries"):
        list(service(model, server, store).complete_many(questions(3)))
    server.faults = []
    assert len(texts(service(model, server, store).complete_many(questions(3)))) == 3


def test_a_request_that_failed_is_a_failure_and_is_asked_again_in_a_rerun(
    model: str, server: BatchServer, store: ReplyStore
) -> None:
    llm = service(model, server, store)
    server.lost[llm.key(questions(2)[1])] = f"no, {KEY}"
    answered = texts(llm.complete_many(questions(2)))

    assert answered[0] == "question 0"
    assert answered[1].startswith("! ")
    assert "no, $TEST_SERVICE_KEY" in answered[1]
    server.lost.clear()
    assert texts(service(model, server, store).complete_many(questions(2)))[1] == "question 1"
    assert [len(made.asked) for made in server.made] == [2, 1]


def test_a_batch_is_as_large_as_the_budget_allows_and_no_larger(
    model: str, server: BatchServer, store: ReplyStore
) -> None:
    answered: list[tuple[int, Reply | Failure]] = []
    with pytest.raises(BudgetError, match="--budget-usd"):
        answered.extend(service(model, server, store, cap_usd=0.4).complete_many(questions(40)))

    assert 0 < len(answered) < 40
    assert len(answered) == sum(len(made.asked) for made in server.made) == store.count("run")
    assert store.spent_usd("run") <= 0.4
    assert store.held() == 0


def test_the_key_goes_in_a_header_and_nowhere_else(
    model: str, server: BatchServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ReplyStore(tmp_path / "replies.sqlite") as store:
        texts(service(model, server, store).complete_many(questions(2)))
    assert all(KEY in (h.get("x-api-key", "") + h.get("authorization", "")) for h in server.headers)
    assert KEY not in json.dumps([made.asked for made in server.made])
    assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.iterdir())
    assert KEY not in caplog.text


def test_an_open_batch_is_not_paid_for_again_one_by_one(model: str, server: BatchServer, store: ReplyStore) -> None:
    die_while_submitting(service(model, server, store))
    llm = service(model, server, store)
    llm.llm = llm.llm.model_copy(update={"batch": False})
    with pytest.raises(ConfigError, match="set batch to true again"):
        list(llm.complete_many(questions(4)))


def test_nobody_waits_for_a_batch_to_free_its_dollars(model: str, server: BatchServer, store: ReplyStore) -> None:
    die_while_submitting(service(model, server, store))
    asked = ServiceModel.model_validate({**service(model, server, store).llm.model_dump(), "batch": False})
    budget = Budget(10, folder_usd=0.3)
    other = ServiceLLM(asked, store=store, budget=budget, purpose=Purpose("other", "judge"))
    with pytest.raises(BudgetError, match="set aside for open batches"):
        list(other.complete_many(questions(1)))


def test_a_provider_without_a_batch_api_is_refused(server: BatchServer, store: ReplyStore) -> None:
    with pytest.raises(ConfigError, match="batch is for openai and anthropic"):
        list(service("gemini/gemini-2.5-flash", server, store).complete_many(questions(1)))


def test_two_batches_of_anthropics_that_look_alike_are_not_guessed_between(
    server: BatchServer, tmp_path: Path
) -> None:
    model = "anthropic/claude-sonnet-4-5"
    with ReplyStore(tmp_path / "other.sqlite") as other:
        texts(service(model, server, other).complete_many(questions(4)))
    first = ReplyStore(tmp_path / "replies.sqlite")
    die_while_submitting(service(model, server, first))
    first.close()
    with ReplyStore(tmp_path / "replies.sqlite") as second, pytest.raises(StageError, match="msgbatch_0, msgbatch_1"):
        list(service(model, server, second).complete_many(questions(4)))
