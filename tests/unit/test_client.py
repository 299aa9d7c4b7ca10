"""The one door to the service LLM: what is asked, paid, kept, tried again and shown."""

import asyncio
import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm import exceptions as failures

from mlflow_llamaduo.config import ServiceLLMs
from mlflow_llamaduo.errors import BudgetError, ConfigError
from mlflow_llamaduo.service_llm.client import Budget, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request

MODEL = "openai/gpt-4o"
ONE_DOLLAR_A_CALL = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e6 / 100, "max_tokens": 100}
SECRET = "planted-0123456789abcdef"


@dataclass
class Provider:
    """A paid model behind litellm that fails in the given ways first, then answers with what it was asked."""

    faults: list[Exception] = field(default_factory=list)
    output_tokens: Callable[[], int] = lambda: 100
    text: str | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    async def __call__(self, **asked: Any) -> Any:
        self.calls.append(asked)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            for _ in range(1 + len(self.calls) % 3):
                await asyncio.sleep(0)
        finally:
            self.open -= 1
        if self.faults:
            raise self.faults.pop(0)
        text = asked["messages"][-1]["content"] if self.text is None else self.text
        message = SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop")
        usage = SimpleNamespace(prompt_tokens=10, completion_tokens=self.output_tokens())
        return SimpleNamespace(choices=[message], usage=usage)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    provider = Provider()
    monkeypatch.setattr(litellm, "acompletion", provider)
    return provider


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept between tries; nobody sleeps in fact."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    return slept


@pytest.fixture
def store() -> Iterator[ReplyStore]:
    store = ReplyStore(":memory:")
    yield store
    store.close()


def service(store: ReplyStore, *, model: str = MODEL, budget: Budget | None = None, **settings: Any) -> ServiceLLM:
    known = ServiceLLMs.model_validate({**ONE_DOLLAR_A_CALL, **settings})
    return ServiceLLM(model, known, store=store, budget=budget or Budget(1000.0), run="run", stage="stage")


def question(text: str, repeat: int = 0, schema: dict[str, Any] | None = None) -> Request:
    return Request(({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}), schema, repeat)


def questions(count: int) -> list[Request]:
    return [question(f"question {number}") for number in range(count)]


TRANSIENT = [failures.RateLimitError, failures.Timeout, failures.APIConnectionError, failures.InternalServerError,
             failures.ServiceUnavailableError, failures.BadGatewayError]  # fmt: skip
REFUSALS = [failures.BadRequestError, failures.ContextWindowExceededError, failures.ContentPolicyViolationError]
NO_USE = [failures.AuthenticationError, failures.NotFoundError]


def made(kind: Any, message: str = "it broke") -> Exception:
    arguments = {"message": message, "model": "gpt-4o", "llm_provider": "openai"}
    error: Exception = kind(**arguments)
    return error


# Asking


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_all_requests_are_answered_just_once_and_no_more_than_allowed_at_a_time(
    provider: Provider, store: ReplyStore, concurrency: int
) -> None:
    answered = list(service(store, concurrency=concurrency).complete(questions(20)))

    assert sorted(index for index, _ in answered) == list(range(20))
    assert all(isinstance(reply, Reply) and reply.text == f"question {index}" for index, reply in answered)
    assert len(provider.calls) == 20
    assert provider.most_open == concurrency


def test_no_requests_are_no_calls(provider: Provider, store: ReplyStore) -> None:
    assert list(service(store).complete([])) == []
    assert provider.calls == []


def test_nothing_but_the_token_limit_is_set_and_sampling_stays_the_providers(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X_API_KEY", SECRET)
    settings: dict[str, Any] = {
        "api_key_env": "X_API_KEY",
        "api_base": "http://here/v1",
        "max_tokens": 77,
        "timeout_s": 9.0,
    }
    list(service(store, **settings).complete([question("q")]))

    (asked,) = provider.calls
    assert asked["messages"] == [dict(message) for message in question("q").messages]
    assert (asked["model"], asked["api_base"], asked["api_key"]) == (MODEL, "http://here/v1", SECRET)
    assert (asked["max_tokens"], asked["timeout"], asked["num_retries"]) == (77, 9.0, 0)
    assert not {"temperature", "top_p", "response_format", "seed"} & set(asked)


def test_a_schema_is_sent_to_models_that_can_follow_one(provider: Provider, store: ReplyStore) -> None:
    schema = {"name": "verdict", "strict": True, "schema": {"type": "object"}}
    list(service(store).complete([question("q", schema=schema)]))
    list(service(store, model="offline/judge").complete([question("q", schema=schema)]))

    paid, offline = provider.calls
    assert paid["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert "response_format" not in offline


# Keeping


def test_stored_replies_come_first_and_are_not_asked_for_again(provider: Provider, store: ReplyStore) -> None:
    first = dict(service(store).complete(questions(3)))
    again = list(service(store).complete([question("new"), *questions(3)]))

    assert len(provider.calls) == 4
    assert [index for index, _ in again] == [1, 2, 3, 0]
    assert [reply for _, reply in again[:3]] == [first[0], first[1], first[2]]
    assert store.spent_usd("run", "stage") == pytest.approx(4.0)


def test_every_repeat_of_a_question_is_asked(provider: Provider, store: ReplyStore) -> None:
    list(service(store).complete([question("q", repeat) for repeat in range(3)]))

    assert len(provider.calls) == store.count("run") == 3


def test_what_is_asked_makes_the_key_and_how_it_is_asked_does_not(store: ReplyStore) -> None:
    def key(request: Request = question("q"), **settings: Any) -> str:  # noqa: B008 - it is frozen
        return service(store, **settings).key(request)

    assert key() == key(concurrency=1, retries=0, timeout_s=1.0, api_key_env="X_API_KEY")
    others = [
        key(question("other")),
        key(question("q", repeat=1)),
        key(question("q", schema={"type": "object"})),
        key(model="openai/gpt-4o-mini"),
        key(api_base="http://here/v1"),
        key(max_tokens=99),
    ]
    assert len({key(), *others}) == 7


@pytest.mark.usefixtures("naps")
@pytest.mark.parametrize("kind", [*TRANSIENT, *REFUSALS])
def test_a_failure_is_not_stored_and_is_asked_for_again(provider: Provider, store: ReplyStore, kind: Any) -> None:
    provider.faults = [made(kind)]
    ((_, failure),) = service(store, retries=0).complete([question("q")])

    assert isinstance(failure, Failure)
    assert store.count("run") == 0
    ((_, reply),) = service(store, retries=0).complete([question("q")])
    assert isinstance(reply, Reply)


def test_equal_requests_in_one_batch_leave_store_and_budget_agreed(provider: Provider, store: ReplyStore) -> None:
    budget = Budget(1000.0)  # K sampled answers to one prompt are often the same text
    answered = dict(service(store, budget=budget).complete([question("same")] * 4))

    assert set(answered) == {0, 1, 2, 3}
    assert store.spent_usd("run") == pytest.approx(budget.spent_usd)
    assert provider.calls


# Trying again


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_transient_error_is_tried_again_after_a_pause(
    provider: Provider, store: ReplyStore, naps: list[float], kind: Any
) -> None:
    provider.faults = [made(kind), made(kind)]
    ((_, reply),) = service(store).complete([question("q")])

    assert isinstance(reply, Reply)
    assert len(provider.calls) == 3
    assert len(naps) == 2
    assert 0 < naps[0] <= 2 * naps[1] <= 8


def test_tries_end_in_a_failure_that_says_how_many_and_why(
    provider: Provider, store: ReplyStore, naps: list[float]
) -> None:
    provider.faults = [made(failures.RateLimitError, "slow down") for _ in range(9)]
    ((_, failure),) = service(store, retries=3).complete([question("q")])

    assert isinstance(failure, Failure)
    assert failure.reason.startswith("gave up after 4 tries: RateLimitError:")
    assert "slow down" in failure.reason
    assert (len(provider.calls), len(naps)) == (4, 3)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_request_is_not_tried_again_and_the_others_go_on(
    provider: Provider, store: ReplyStore, naps: list[float], kind: Any
) -> None:
    provider.faults = [made(kind)]
    answered = dict(service(store, concurrency=1).complete(questions(3)))

    assert isinstance(answered[0], Failure)
    assert isinstance(answered[1], Reply)
    assert isinstance(answered[2], Reply)
    assert (len(provider.calls), naps) == (3, [])


@pytest.mark.parametrize("kind", NO_USE)
def test_a_refused_key_or_an_unknown_model_ends_the_run_at_once(
    provider: Provider, store: ReplyStore, naps: list[float], kind: Any
) -> None:
    provider.faults = [made(kind)]

    with pytest.raises(ConfigError, match=f"{MODEL} cannot be used: {kind.__name__}"):
        list(service(store, concurrency=1).complete(questions(5)))
    assert (len(provider.calls), naps) == (1, [])


def test_an_error_that_nobody_foresaw_is_a_bug_and_is_left_alone(provider: Provider, store: ReplyStore) -> None:
    provider.faults = [ZeroDivisionError("a bug")]

    with pytest.raises(ZeroDivisionError):
        list(service(store).complete([question("q")]))


# Secrets


def shown(provider: Provider, store: ReplyStore, kind: Any, message: str, **settings: Any) -> str:
    """What a user gets to see of an error."""
    provider.faults = [made(kind, message)] * 2
    try:
        ((_, failure),) = service(store, retries=1, **settings).complete([question("q")])
    except ConfigError as error:
        return str(error)
    assert isinstance(failure, Failure)
    return failure.reason


@pytest.mark.usefixtures("naps")
@pytest.mark.parametrize("kind", [*TRANSIENT, *REFUSALS, *NO_USE])
def test_a_key_that_a_provider_quotes_back_is_shown_by_its_name(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setenv("X_API_KEY", SECRET)
    text = shown(provider, store, kind, f"Incorrect API key: {SECRET}. Get one.")

    assert SECRET not in text
    assert "Incorrect API key: $X_API_KEY. Get one." in text


@pytest.mark.usefixtures("naps")
@pytest.mark.parametrize("before", range(240, 305, 5))
def test_not_even_a_part_of_a_key_is_shown_where_a_long_error_is_cut(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setenv("X_API_KEY", SECRET)
    text = shown(provider, store, failures.RateLimitError, f"{'x' * before}{SECRET} and more")

    assert "planted" not in text


def test_the_key_in_use_is_hidden_whatever_its_variable_is_called(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_LOGIN", SECRET)
    text = shown(provider, store, failures.AuthenticationError, f"Bad key {SECRET}", api_key_env="MY_LOGIN")

    assert SECRET not in text


# Money


def test_a_reply_costs_its_tokens_by_the_price(provider: Provider, store: ReplyStore) -> None:
    provider.output_tokens = lambda: 7
    settings: dict[str, Any] = {"input_usd_per_mtok": 5.0, "output_usd_per_mtok": 15.0}
    ((_, reply),) = service(store, **settings).complete([question("q")])

    assert reply == Reply("q", 10, 7, (10 * 5 + 7 * 15) / 1e6)


def test_the_budget_ends_the_asking_and_keeps_the_replies_before_it(provider: Provider, store: ReplyStore) -> None:
    budget = Budget(3.0)
    answered: list[int] = []

    with pytest.raises(BudgetError):
        answered.extend(index for index, _ in service(store, budget=budget, concurrency=2).complete(questions(9)))
    assert budget.spent_usd == store.spent_usd("run") == pytest.approx(3.0)
    assert (len(provider.calls), store.count("run")) == (3, 3)

    resumed = Budget(9.0, spent_usd=store.spent_usd("run"))
    assert len(list(service(store, budget=resumed).complete(questions(9)))) == 9
    assert len(provider.calls) == 9


def test_calls_that_meet_the_end_of_the_budget_together_are_one_error_and_no_noise(
    provider: Provider, store: ReplyStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BudgetError):
        list(service(store, budget=Budget(2.5), concurrency=8).complete(questions(8)))
    gc.collect()

    assert caplog.messages == []  # asyncio logs a task whose exception nobody has looked at
    assert len(provider.calls) == 2


def test_a_budget_that_is_used_up_makes_no_call(provider: Provider, store: ReplyStore) -> None:
    with pytest.raises(BudgetError):
        list(service(store, budget=Budget(3.0, spent_usd=2.5)).complete(questions(2)))
    assert provider.calls == []


@given(st.integers(0, 99), st.integers(1, 8), st.floats(0, 12), st.integers(0, 12))
def test_the_budget_is_never_passed_however_many_calls_run_at_once(
    seed: int, concurrency: int, cap: float, count: int
) -> None:
    rng = random.Random(seed)  # noqa: S311
    provider = Provider(output_tokens=lambda: rng.randint(1, 100))
    store, budget = ReplyStore(":memory:"), Budget(cap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litellm, "acompletion", provider)
        answered = []
        try:
            for index, _ in service(store, budget=budget, concurrency=concurrency).complete(questions(count)):
                answered.append(index)
        except BudgetError:
            assert len(provider.calls) < count
        else:
            assert sorted(answered) == list(range(count))
    assert store.spent_usd("run") == pytest.approx(budget.spent_usd)
    assert budget.spent_usd <= cap + 1e-9
    store.close()


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_reply_is_a_failure_that_was_paid_for(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    async def empty(**asked: Any) -> Any:
        answer = await provider(**asked)
        answer.choices[0].message.content = text  # a model that spent all its tokens on thinking
        return answer

    monkeypatch.setattr(litellm, "acompletion", empty)
    budget = Budget(1000.0)
    ((_, failure),) = service(store, budget=budget).complete([question("q")])

    assert isinstance(failure, Failure)
    assert failure.reason == "the reply is empty"
    assert store.get(service(store).key(question("q"))) is None
    assert budget.spent_usd == store.spent_usd("run") == pytest.approx(1.0)


def test_half_a_character_in_a_reply_does_not_end_the_run(provider: Provider, store: ReplyStore) -> None:
    provider.text = "cut \ud83d"  # what is left of an emoji; no database takes it
    ((_, reply),) = service(store).complete([question("q")])

    assert isinstance(reply, Failure) or reply.text.encode()


def test_closing_the_iterator_cancels_what_is_open(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow_but_for_the_first(**asked: Any) -> Any:
        if provider.calls:
            await asyncio.sleep(0.3)
        return await provider(**asked)

    monkeypatch.setattr(litellm, "acompletion", slow_but_for_the_first)
    replies = service(store, concurrency=4).complete(questions(50))
    next(replies)
    replies.close()

    assert len(provider.calls) == store.count("run") == 1
