"""Rows that come one by one and from many threads, and the one thread that has them judged."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from litellm import exceptions as failures
from pydantic import ValidationError

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import Judgement, Response, Verdict
from mlflow_llamaduo.errors import BudgetError, ConfigError
from mlflow_llamaduo.judging.bench import Bench, JudgeFields
from mlflow_llamaduo.judging.prompt import GENERAL
from tests.unit.builders import response

VERDICT = '{"similarity_assessment": {"score": 70}, "precision_assessment": {"score": 80}}'
WAIT_S = 30


class Provider:
    """A judge that gives everybody the same scores, as soon as it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.faults: list[Exception] = []
        self.called, self.let = threading.Event(), threading.Event()
        self.let.set()

    async def __call__(self, **call: Any) -> Any:
        self.asked.append(call["messages"][-1]["content"])
        self.called.set()
        await asyncio.to_thread(self.let.wait, WAIT_S)
        if self.faults:
            raise self.faults.pop(0)
        choice = SimpleNamespace(message=SimpleNamespace(content=VERDICT), finish_reason="stop")
        return SimpleNamespace(choices=[choice], usage=SimpleNamespace(prompt_tokens=10, completion_tokens=10))


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.chdir(tmp_path)
    provider = Provider()
    monkeypatch.setattr(litellm, "acompletion", provider)
    yield provider
    provider.let.set()


def bench(repeats: int = 1, **settings: Any) -> Bench:
    return Bench(ServiceModel(model="offline/judge", **settings), GENERAL, repeats, 10.0)


def scores(judged: "Future[tuple[Judgement, ...]]") -> list[tuple[float, float]]:
    return [(j.similarity, j.precision) for j in judged.result(WAIT_S) if isinstance(j, Verdict)]


def test_a_response_is_judged_as_often_as_is_wanted(provider: Provider) -> None:
    assert scores(bench(repeats=3).ask(response())) == [(70, 80)] * 3
    assert len(provider.asked) == 3


def test_two_that_ask_for_the_same_at_once_are_asked_for_once(provider: Provider) -> None:
    provider.let.clear()
    own = bench()
    first = own.ask(response())
    assert provider.called.wait(WAIT_S)
    second = own.ask(response())
    provider.let.set()

    assert scores(first) == scores(second) == [(70, 80)]
    assert len(provider.asked) == 1


def test_who_asks_later_and_by_another_bench_finds_the_reply_in_the_store(provider: Provider) -> None:
    assert scores(bench().ask(response())) == scores(bench().ask(response())) == [(70, 80)]
    assert len(provider.asked) == 1


def test_many_threads_ask_at_once_and_every_response_is_asked_about_once(provider: Provider) -> None:
    own, together = bench(repeats=2), threading.Barrier(20, timeout=60)

    def ask(number: int) -> list[tuple[float, float]]:
        together.wait(WAIT_S)
        return scores(own.ask(response(f"town {number % 10}")))

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [[(70, 80)] * 2] * 20
    assert len(provider.asked) == 20


def test_what_ends_the_judging_is_raised_where_it_is_waited_for_and_the_next_is_judged(provider: Provider) -> None:
    own = bench()
    provider.faults.append(failures.AuthenticationError("no such key", "offline", "judge"))
    with pytest.raises(ConfigError, match="no such key"):
        own.ask(response()).result(WAIT_S)

    assert scores(own.ask(response())) == [(70, 80)]


def test_a_bug_is_raised_where_it_is_waited_for(provider: Provider) -> None:
    provider.faults.append(ZeroDivisionError("a bug"))

    with pytest.raises(ZeroDivisionError):
        bench().ask(response()).result(WAIT_S)


def test_who_waits_is_told_too(provider: Provider) -> None:
    provider.let.clear()
    own = bench(concurrency=1)
    provider.faults.append(failures.AuthenticationError("no such key", "offline", "judge"))
    first = own.ask(response("first"))
    assert provider.called.wait(WAIT_S)
    others = [own.ask(response(f"town {number}")) for number in range(5)]
    provider.let.set()

    for judged in (first, *others):
        with pytest.raises(ConfigError, match="no such key"):
            judged.result(WAIT_S)
    assert len(provider.asked) == 1


def test_a_store_that_is_none_is_told(provider: Provider) -> None:
    Path(".llamaduo").mkdir()
    Path(".llamaduo/replies.sqlite").write_text("no database, but long enough to be taken for one " * 30)

    with pytest.raises(sqlite3.DatabaseError):
        bench().ask(response()).result(WAIT_S)


def test_the_budget_is_kept(provider: Provider) -> None:
    priced = ServiceModel(model="openai/m", input_usd_per_mtok=1, output_usd_per_mtok=1, json_schema=False)

    with pytest.raises(BudgetError):
        Bench(priced, GENERAL, 1, 0.0).ask(response()).result(WAIT_S)
    assert provider.asked == []


def test_what_is_cancelled_before_its_turn_is_never_asked_and_may_be_asked_again(provider: Provider) -> None:
    provider.let.clear()
    own = bench(concurrency=1)
    first = own.ask(response("first"))
    assert provider.called.wait(WAIT_S)
    second = own.ask(response("second"))
    assert second.cancel()
    provider.let.set()
    assert scores(first) == [(70, 80)]
    assert scores(own.ask(response("third"))) == [(70, 80)]
    assert not any("second" in asked for asked in provider.asked)

    assert scores(own.ask(response("second"))) == [(70, 80)]


def test_a_notebook_in_whose_thread_an_event_loop_runs_may_ask(provider: Provider) -> None:
    async def notebook() -> list[tuple[float, float]]:
        return scores(bench().ask(response()))

    assert asyncio.run(notebook()) == [(70, 80)]
    assert len(provider.asked) == 1


def test_equal_fields_have_one_bench() -> None:
    fields = {"judge": "offline/judge", "task": "closed_qa", "repeats": 2}

    assert JudgeFields(**fields).bench is JudgeFields(**fields).bench
    assert JudgeFields(**fields).bench is not JudgeFields(**{**fields, "repeats": 3}).bench


def test_the_judge_is_told_the_task_and_the_given_prompt(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    async def listen(**call: Any) -> Any:
        told.append(call["messages"])
        return await provider(**call)

    monkeypatch.setattr(litellm, "acompletion", listen)
    JudgeFields(task="closed_qa", prompt="Grade.").bench.ask(Response("p", 0, "q", "r", "t", 0)).result(WAIT_S)

    ((system, user),) = told
    assert system["content"] == "Grade."
    assert '"task": "closed_qa"' in user["content"]


def test_a_judge_that_cannot_be_asked_is_told_before_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(ValidationError, match="unknown service LLM 'gpt-4'; did you mean 'gpt-4o'"):
        JudgeFields(judge="gpt-4")
    with pytest.raises(ValidationError, match="set the environment variable OPENAI_API_KEY"):
        JudgeFields(judge="gpt-4o")
    with pytest.raises(ValidationError, match="the price of openai/mine is not known"):
        JudgeFields(judge="openai/mine", api_base="http://localhost:1")
    with pytest.raises(ValidationError, match="give the text itself"):
        JudgeFields(prompt="prompts:/judge/1")


def test_a_key_in_the_place_of_its_variables_name_is_not_shown() -> None:
    with pytest.raises(ValidationError, match=r"give the \*name\*") as refused:
        JudgeFields(judge="gpt-4o", api_key_env="sk-planted-0123456789")

    assert "planted" not in str(refused.value)
