"""The one door to the service LLM: what is asked, paid, kept, tried again and shown."""

import asyncio
import gc
import math
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm import exceptions as failures

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import BudgetError, ConfigError
from mlflow_llamaduo.service_llm import budget as budgets
from mlflow_llamaduo.service_llm import client, flow
from mlflow_llamaduo.service_llm.client import Budget, ServiceLLM
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply, Request, most_tokens
from mlflow_llamaduo.service_llm.flow import AT_ONCE, Answer
from mlflow_llamaduo.service_llm.rate import Rate, Turnstile
from mlflow_llamaduo.service_llm.store import ReplyStore

MODEL = "openai/gpt-4o"
ONE_DOLLAR_A_CALL = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e6 / 100, "max_tokens": 100}
SECRET = "planted-0123456789abcdef"
PURPOSE = Purpose("run", "stage")
Answered = list[tuple[int, Answer]]


@dataclass
class Provider:
    """A paid model behind litellm that fails in the given ways first, then answers with what it was asked."""

    faults: list[Exception] = field(default_factory=list)
    output_tokens: Callable[[], int] = lambda: 100
    text: str | None = None
    cached_tokens: int = 0
    hangs: Callable[[str], bool] = lambda _: False
    calls: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    async def __call__(self, **asked: Any) -> Any:
        self.calls.append(asked)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        question = asked["messages"][-1]["content"]
        try:
            for _ in range(1 + len(self.calls) % 3):
                await asyncio.sleep(0)
            if self.hangs(question):
                await asyncio.Event().wait()
        finally:
            self.open -= 1
        if self.faults:
            raise self.faults.pop(0)
        message = SimpleNamespace(content=question if self.text is None else self.text)
        details = SimpleNamespace(cached_tokens=self.cached_tokens)
        usage = SimpleNamespace(
            prompt_tokens=10, completion_tokens=self.output_tokens(), prompt_tokens_details=details
        )
        return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="stop")], usage=usage)

    @property
    def questions(self) -> list[str]:
        return [asked["messages"][-1]["content"] for asked in self.calls]


@dataclass
class Clock:
    """Time that passes while somebody sleeps, and only then."""

    now: float = 1000.0
    naps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    provider = Provider()
    monkeypatch.setattr(litellm, "acompletion", provider)
    return provider


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nobody sleeps in fact, and every test has a rate of its own."""
    clock, sleep = Clock(), asyncio.sleep

    async def nap(seconds: float) -> None:
        if seconds:
            clock.naps.append(seconds)
            clock.now += seconds + 1e-9
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    monkeypatch.setattr(
        client, "turnstile", lambda terms, _: Turnstile(Rate(terms.rpm or math.inf, terms.tpm, clock=clock))
    )
    return clock


@pytest.fixture
def store() -> Iterator[ReplyStore]:
    store = ReplyStore(":memory:")
    yield store
    store.close()


def service(
    store: ReplyStore,
    *,
    budget: Budget | None = None,
    purpose: Purpose = PURPOSE,
    trace: client.Trace | None = None,
    trace_share: float = 0.0,
    **settings: Any,
) -> ServiceLLM:
    llm = ServiceModel.model_validate({"model": MODEL, **ONE_DOLLAR_A_CALL, **settings})
    return ServiceLLM(
        llm, store=store, budget=budget or Budget(1000.0), purpose=purpose, trace=trace, trace_share=trace_share
    )


def question(text: str, repeat: int = 0, schema: dict[str, Any] | None = None) -> Request:
    return Request(({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}), schema, repeat)


def questions(number: int) -> list[Request]:
    return [question(f"question {number}") for number in range(number)]


def ask(store: ReplyStore, *requests: Request, **settings: Any) -> Answered:
    return list(service(store, **settings).complete_many(requests))


def ask_one(store: ReplyStore, **settings: Any) -> Answer:
    ((index, answer),) = ask(store, question("q"), **settings)
    assert index == 0
    return answer


def held(store: ReplyStore) -> int:
    with store.writing():
        return store.held()


TRANSIENT = [failures.RateLimitError, failures.Timeout, failures.APIConnectionError, failures.InternalServerError,
             failures.ServiceUnavailableError, failures.BadGatewayError]  # fmt: skip
REFUSALS = [failures.BadRequestError, failures.ContextWindowExceededError, failures.ContentPolicyViolationError,
            failures.UnprocessableEntityError]  # fmt: skip
NO_USE = [failures.AuthenticationError, failures.NotFoundError, failures.PermissionDeniedError]
NEEDS_RESPONSE = (failures.UnprocessableEntityError, failures.PermissionDeniedError)


def made(kind: Any, message: str = "it broke", **headers: str) -> Exception:
    arguments: dict[str, Any] = {"message": message, "model": "gpt-4o", "llm_provider": "openai"}
    if headers or kind in NEEDS_RESPONSE:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        arguments["response"] = httpx.Response(400, headers=named, request=httpx.Request("POST", "http://here"))
    error: Exception = kind(**arguments)
    return error


# Asking


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_all_requests_are_answered_just_once_and_no_more_than_allowed_at_a_time(
    provider: Provider, store: ReplyStore, concurrency: int
) -> None:
    answered = ask(store, *questions(20), concurrency=concurrency)

    assert sorted(index for index, _ in answered) == list(range(20))
    assert all(isinstance(reply, Reply) and reply.text == f"question {index}" for index, reply in answered)
    assert len(provider.calls) == 20
    assert provider.most_open == concurrency


def test_no_requests_are_no_calls(provider: Provider, store: ReplyStore) -> None:
    assert ask(store) == []
    assert provider.calls == []


def test_nothing_but_the_token_limit_is_set_and_sampling_stays_the_providers(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X_API_KEY", SECRET)
    ask_one(store, api_key_env="X_API_KEY", api_base="http://here/v1", max_tokens=77, timeout_s=9.0)

    (asked,) = provider.calls
    assert asked["messages"] == [dict(message) for message in question("q").messages]
    assert (asked["model"], asked["api_base"], asked["api_key"]) == (MODEL, "http://here/v1", SECRET)
    assert (asked["max_tokens"], asked["timeout"], asked["num_retries"], asked["max_retries"]) == (77, 9.0, 0, 0)
    assert not {"temperature", "top_p", "response_format", "seed"} & set(asked)


def test_a_schema_is_sent_to_models_that_can_follow_one(provider: Provider, store: ReplyStore) -> None:
    schema = {"name": "verdict", "strict": True, "schema": {"type": "object"}}
    for settings in ({}, {"json_schema": False}, {"model": "offline/judge"}):
        ask(store, question("q", schema=schema), **settings)

    paid, without, offline = provider.calls
    assert paid["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert "response_format" not in without | offline


def test_a_short_name_is_asked_by_the_name_of_litellm(provider: Provider, store: ReplyStore) -> None:
    ask_one(store, model="gpt-4o")

    assert provider.calls[0]["model"] == service(store, model="gpt-4o").model == "openai/gpt-4o"


def test_the_first_call_goes_alone(provider: Provider, store: ReplyStore) -> None:
    replies = service(store, concurrency=8).complete_many(questions(9))
    next(replies)

    assert (len(provider.calls), provider.most_open) == (1, 1)
    assert len(list(replies)) == 8
    assert provider.most_open == 8


def test_the_others_do_not_wait_for_a_first_call_that_takes_long(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "ALONE_S", 0.005)
    provider.hangs = lambda text: text == "question 0"
    with closing(service(store, concurrency=4).complete_many(questions(9))) as replies:
        assert sorted(index for index, _ in islice(replies, 8)) == list(range(1, 9))


def test_the_collector_of_garbage_is_as_it_was(provider: Provider, store: ReplyStore) -> None:
    before = gc.get_threshold()
    gc.set_threshold(701, 11, 12)
    try:
        ask(store, *questions(2))
        assert gc.get_threshold() == (701, 11, 12)

        provider.faults = [ZeroDivisionError("a bug")]
        with pytest.raises(ZeroDivisionError):
            ask(store, question("new"))
        assert gc.get_threshold() == (701, 11, 12)
    finally:
        gc.set_threshold(*before)


# Any number of requests


class Pulled:
    """Requests without an end; how many have been taken?"""

    def __init__(self, requests: Iterator[Request]) -> None:
        self.taken = 0
        self._requests = requests

    def __iter__(self) -> Iterator[Request]:
        for request in self._requests:
            self.taken += 1
            yield request


@pytest.mark.parametrize("concurrency", [1, 16])
def test_requests_without_an_end_are_taken_as_places_come_free(
    provider: Provider, store: ReplyStore, concurrency: int
) -> None:
    endless = Pulled(question(str(number)) for number in count())
    replies = service(store, concurrency=concurrency).complete_many(endless)
    for done in range(200):
        next(replies)
        assert endless.taken <= done + 1 + concurrency + AT_ONCE
    replies.close()

    assert provider.open == 0
    assert endless.taken <= 200 + 2 * concurrency
    assert held(store) == 0


def test_stored_replies_without_an_end_are_taken_a_few_at_a_time(provider: Provider, store: ReplyStore) -> None:
    ask(store, *questions(3))
    endless = Pulled(cycle(questions(3)))
    with closing(service(store).complete_many(endless)) as replies:
        for done, (index, _) in enumerate(islice(replies, 2000)):
            assert index == done
            assert endless.taken <= done + AT_ONCE
    assert len(provider.calls) == 3


def test_stored_replies_do_not_keep_an_open_call_waiting(provider: Provider, store: ReplyStore) -> None:
    ask(store, *questions(3))

    def requests() -> Generator[Request, None, None]:
        yield from (question("first"), question("second"))
        yield from cycle(questions(3))

    with closing(service(store, concurrency=2).complete_many(requests())) as replies:
        indices = [index for index, _ in islice(replies, 100 * AT_ONCE)]
    assert {0, 1} <= set(indices)


def test_an_error_in_the_requests_is_the_callers_and_leaves_nothing_open(
    provider: Provider, store: ReplyStore
) -> None:
    def requests() -> Generator[Request, None, None]:
        yield from questions(4)
        raise LookupError("no more pairs")

    with pytest.raises(LookupError, match="no more pairs"):
        list(service(store, concurrency=2).complete_many(requests()))
    assert (provider.open, held(store)) == (0, 0)


# Keeping


def test_stored_replies_come_first_and_are_not_asked_for_again(provider: Provider, store: ReplyStore) -> None:
    first = dict(ask(store, *questions(3)))
    again = ask(store, *questions(3), question("new"))

    assert len(provider.calls) == 4
    assert [index for index, _ in again] == [0, 1, 2, 3]
    assert [reply for _, reply in again[:3]] == [first[0], first[1], first[2]]
    assert store.spent_usd("run", "stage") == pytest.approx(4.0)


def test_every_repeat_of_a_question_is_asked(provider: Provider, store: ReplyStore) -> None:
    ask(store, *(question("q", repeat) for repeat in range(3)))

    assert len(provider.calls) == store.count("run") == 3


def test_what_is_asked_makes_the_key_and_how_it_is_asked_does_not(store: ReplyStore) -> None:
    def key(request: Request = question("q"), **settings: Any) -> str:  # noqa: B008 - it is frozen
        return service(store, **settings).key(request)

    assert key() == key(concurrency=1, retries=0, timeout_s=1.0, api_key_env="X_API_KEY", rpm=1, tpm=1)
    assert key() == key(input_usd_per_mtok=1, output_usd_per_mtok=1) == key(model="gpt-4o")
    others = [
        key(question("other")),
        key(question("q", repeat=1)),
        key(question("q", schema={"type": "object"})),
        key(model="openai/gpt-4o-mini"),
        key(api_base="http://here/v1"),
        key(max_tokens=99),
    ]
    assert len({key(), *others}) == 7


@pytest.mark.parametrize("kind", [*TRANSIENT, *REFUSALS])
def test_a_failure_is_not_stored_and_is_asked_for_again(provider: Provider, store: ReplyStore, kind: Any) -> None:
    provider.faults = [made(kind)]

    assert isinstance(ask_one(store, retries=0), Failure)
    assert store.count("run") == 0
    assert isinstance(ask_one(store, retries=0), Reply)


def test_equal_requests_that_are_open_together_are_asked_once(provider: Provider, store: ReplyStore) -> None:
    same = [question("same")] * 4  # K sampled answers to one prompt are often the same text
    answered = dict(ask(store, question("first"), *same, question("last"), concurrency=8))

    assert set(answered) == set(range(6))
    assert sorted(provider.questions) == ["first", "last", "same"]
    assert answered[1] == answered[2] == answered[3] == answered[4]
    assert store.spent_usd("run") == pytest.approx(3.0)


def test_equal_requests_fail_together_too(provider: Provider, store: ReplyStore) -> None:
    provider.faults = [made(failures.BadRequestError, "first"), made(failures.BadRequestError, "second")]
    answered = dict(ask(store, question("q"), *[question("same")] * 3))

    assert len(provider.calls) == 2
    assert answered[1] == answered[2] == answered[3]
    assert isinstance(answered[1], Failure)


def test_an_answer_is_on_disk_when_it_is_handed_out(provider: Provider, tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with closing(ReplyStore(path)) as store, closing(ReplyStore(path)) as other:
        llm = service(store, concurrency=4)
        requests = questions(9)
        for index, reply in llm.complete_many(requests):
            assert other.get(llm.key(requests[index])) == reply


# Trying again


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_transient_error_is_tried_again_after_a_pause(
    provider: Provider, store: ReplyStore, clock: Clock, kind: Any
) -> None:
    provider.faults = [made(kind), made(kind)]

    assert isinstance(ask_one(store), Reply)
    assert len(provider.calls) == 3
    first, second = clock.naps
    assert 1 <= first <= 2 <= second <= 4


def test_pauses_grow_to_a_minute_and_no_further(provider: Provider, store: ReplyStore, clock: Clock) -> None:
    provider.faults = [made(failures.ServiceUnavailableError) for _ in range(12)]
    ask_one(store, retries=12)

    assert len(clock.naps) == 12
    assert max(clock.naps) <= 60
    assert min(clock.naps[6:]) >= 30


def test_tries_end_in_a_failure_that_says_how_many_and_why(
    provider: Provider, store: ReplyStore, clock: Clock
) -> None:
    provider.faults = [made(failures.RateLimitError, "slow down") for _ in range(9)]
    failure = ask_one(store, retries=3)

    assert isinstance(failure, Failure)
    assert failure.reason.startswith("gave up after 4 tries: RateLimitError:")
    assert "slow down" in failure.reason
    assert (len(provider.calls), len(clock.naps)) == (4, 3)


@pytest.mark.parametrize("kind", [failures.RateLimitError, failures.ServiceUnavailableError])
def test_the_wait_that_a_provider_names_is_waited(
    provider: Provider, store: ReplyStore, clock: Clock, kind: Any
) -> None:
    provider.faults = [made(kind, retry_after="90")]

    assert isinstance(ask_one(store), Reply)
    assert 1090 <= clock.now <= 1092


@pytest.mark.parametrize(
    ("kind", "least", "most"), [(failures.RateLimitError, 0.01, 0.5), (failures.ServiceUnavailableError, 1, 2.5)]
)
def test_a_short_wait_is_enough_after_a_refusal_and_not_after_a_fault(
    provider: Provider, store: ReplyStore, clock: Clock, kind: Any, least: float, most: float
) -> None:
    provider.faults = [made(kind, retry_after="0.01")]

    assert isinstance(ask_one(store), Reply)
    assert 1000 + least <= clock.now <= 1000 + most


def test_a_refusal_holds_back_the_other_calls(provider: Provider, store: ReplyStore, clock: Clock) -> None:
    asked: list[float] = []

    def note(_: str) -> bool:
        asked.append(clock.now)
        return False

    provider.hangs = note
    provider.faults = [made(failures.RateLimitError, retry_after="500")]
    ask(store, *questions(4), retries=0, concurrency=1)

    assert all(at >= 1500 for at in asked[1:])


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_request_is_not_tried_again_and_the_others_go_on(
    provider: Provider, store: ReplyStore, clock: Clock, kind: Any
) -> None:
    provider.faults = [made(kind)]
    answered = dict(ask(store, *questions(3), concurrency=1))

    assert isinstance(answered[0], Failure)
    assert isinstance(answered[1], Reply)
    assert isinstance(answered[2], Reply)
    assert (len(provider.calls), clock.naps) == (3, [])
    assert store.spent_usd() == pytest.approx(2.0)
    assert held(store) == 0


@pytest.mark.parametrize("kind", NO_USE)
def test_a_refused_key_or_an_unknown_model_ends_the_run_at_once(
    provider: Provider, store: ReplyStore, clock: Clock, kind: Any
) -> None:
    provider.faults = [made(kind)]

    with pytest.raises(ConfigError, match=f"{MODEL} cannot be used: {kind.__name__}"):
        ask(store, *questions(5), concurrency=4)
    assert (len(provider.calls), clock.naps) == (1, [])
    assert (store.spent_usd(), held(store)) == (0, 0)


def test_no_credit_ends_the_run_at_once(provider: Provider, store: ReplyStore, clock: Clock) -> None:
    provider.faults = [made(failures.RateLimitError, "insufficient_quota: check your plan", retry_after="60")]
    vars(provider.faults[0])["code"] = "insufficient_quota"  # as OpenAI's library keeps what the body says

    with pytest.raises(ConfigError, match=r"cannot be used: RateLimitError.*insufficient_quota"):
        ask(store, *questions(5))
    assert (len(provider.calls), clock.naps) == (1, [])
    assert (store.spent_usd(), held(store)) == (0, 0)


def test_a_key_that_ends_in_the_middle_keeps_what_is_answered_and_frees_the_rest(
    provider: Provider, store: ReplyStore
) -> None:
    def revoked() -> int:
        if len(provider.calls) >= 8:
            provider.faults = [made(failures.AuthenticationError)]
        return 100

    provider.output_tokens = revoked
    with pytest.raises(ConfigError):
        ask(store, *questions(99), concurrency=4)

    assert (provider.open, held(store)) == (0, 0)
    assert store.count("run") >= 4


def test_an_error_that_nobody_foresaw_is_a_bug_and_is_left_alone(provider: Provider, store: ReplyStore) -> None:
    provider.faults = [ZeroDivisionError("a bug")]

    with pytest.raises(ZeroDivisionError):
        ask_one(store)


# Secrets


@pytest.mark.parametrize("doubtful", [False, True], ids=["answered", "dropped"])
@pytest.mark.parametrize("kind", [*TRANSIENT, *REFUSALS, *NO_USE])
def test_a_key_that_a_provider_quotes_back_is_nowhere_to_be_read(
    provider: Provider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: Any,
    doubtful: bool,
) -> None:
    monkeypatch.setenv("X_API_KEY", SECRET)
    headers = {} if doubtful or kind in (failures.Timeout, failures.APIConnectionError) else {"x": "y"}
    provider.faults = [made(kind, f"Incorrect API key: {SECRET}. Get one.", **headers) for _ in range(2)]
    traced: list[Any] = []
    with caplog.at_level(0), closing(ReplyStore(tmp_path / "replies.sqlite")) as store:
        try:
            failure = ask_one(
                store, retries=1, api_key_env="X_API_KEY", trace=lambda *told: traced.append(told), trace_share=1
            )
            text = failure.reason if isinstance(failure, Failure) else ""
        except ConfigError as error:
            text = str(error)
        files = b"".join(file.read_bytes() for file in tmp_path.iterdir())

    assert "Incorrect API key: $X_API_KEY. Get one." in text
    assert SECRET.encode() not in files
    assert SECRET not in text + caplog.text + repr(traced)


# Money


def test_a_reply_costs_its_tokens_by_the_price(provider: Provider, store: ReplyStore) -> None:
    provider.output_tokens = lambda: 7
    reply = ask_one(store, input_usd_per_mtok=5.0, output_usd_per_mtok=15.0)

    assert isinstance(reply, Reply)
    assert (reply.input_tokens, reply.output_tokens) == (10, 7)
    assert reply.usd == store.spent_usd() == (10 * 5 + 7 * 15) / 1e6


def test_cached_tokens_of_a_prompt_are_cheaper(provider: Provider, store: ReplyStore) -> None:
    provider.output_tokens, provider.cached_tokens = (lambda: 7), 8
    llm = ServiceModel(model="gpt-4o")
    list(ServiceLLM(llm, store=store, budget=Budget(1.0), purpose=PURPOSE).complete_many([question("q")]))

    assert store.spent_usd() == pytest.approx((2 * 2.5 + 8 * 1.25 + 7 * 10) / 1e6)


def test_the_budget_ends_the_asking_and_keeps_the_replies_before_it(provider: Provider, store: ReplyStore) -> None:
    answered: list[int] = []

    with pytest.raises(BudgetError):
        for index, _ in service(store, budget=Budget(3.0), concurrency=2).complete_many(questions(9)):
            answered.append(index)
    assert len(answered) == len(provider.calls) == store.count("run") == 3
    assert store.spent_usd("run") == pytest.approx(3.0)

    assert len(ask(store, *questions(9), budget=Budget(9.0))) == 9
    assert len(provider.calls) == 9


def test_the_end_of_the_budget_waits_for_what_is_open(provider: Provider, store: ReplyStore) -> None:
    answered: list[int] = []
    retried = [made(failures.ServiceUnavailableError, retry_after="5") for _ in range(3)]

    def stumbles_after_the_first() -> int:
        provider.faults.extend(retried if len(provider.calls) == 1 else [])
        return 100

    provider.output_tokens = stumbles_after_the_first

    with pytest.raises(BudgetError):
        for index, _ in service(store, budget=Budget(4.0), concurrency=4).complete_many(questions(9)):
            answered.append(index)
    assert len(answered) == store.count("run") == 4


def test_calls_that_meet_the_end_of_the_budget_together_are_one_error_and_no_noise(
    provider: Provider, store: ReplyStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BudgetError):
        ask(store, *questions(8), budget=Budget(2.5), concurrency=8)
    gc.collect()

    assert caplog.messages == []  # asyncio logs a task whose exception nobody has looked at
    assert len(provider.calls) == 2


@pytest.mark.parametrize("budget", [Budget(3.0), Budget(9.0, folder_usd=3.0)])
def test_a_budget_that_is_used_up_makes_no_call(provider: Provider, store: ReplyStore, budget: Budget) -> None:
    with store.writing():
        store.lose(Failure("spent before", 2.5), model="model", purpose=PURPOSE)

    with pytest.raises(BudgetError):
        ask(store, *questions(2), budget=budget)
    assert provider.calls == []


def test_a_model_without_a_price_needs_no_budget(provider: Provider, store: ReplyStore) -> None:
    free = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0}

    assert len(ask(store, *questions(5), budget=Budget(0.0, folder_usd=0.0), **free)) == 5
    assert store.count("run") == 5


@given(st.integers(0, 99), st.integers(1, 8), st.floats(0, 12), st.integers(0, 12))
def test_the_budget_is_never_passed_however_many_calls_run_at_once(
    seed: int, concurrency: int, cap: float, number: int
) -> None:
    rng = random.Random(seed)  # noqa: S311
    provider = Provider(output_tokens=lambda: rng.randint(1, 100))
    answered = []
    with pytest.MonkeyPatch.context() as patch, closing(ReplyStore(":memory:")) as store:
        patch.setattr(litellm, "acompletion", provider)
        patch.setattr(budgets, "POLL_S", 0.001)
        llm = service(store, budget=Budget(cap), concurrency=concurrency)
        try:
            for index, _ in llm.complete_many(questions(number)):
                answered.append(index)
        except BudgetError:
            assert len(provider.calls) < number
        else:
            assert sorted(answered) == list(range(number))
        assert len(answered) == len(provider.calls)
        assert store.spent_usd("run") == pytest.approx(llm.meter.usd)
        assert llm.spent_usd <= cap + 1e-9
        assert held(store) == 0


@pytest.mark.parametrize(
    ("error", "usd"),
    [
        (made(failures.Timeout), 1.0),
        (made(failures.APIConnectionError), 1.0),
        (made(failures.InternalServerError), 1.0),
        (made(failures.InternalServerError, x_request_id="1"), 0.0),
        (made(failures.ServiceUnavailableError, x_request_id="1"), 0.0),
        (made(failures.RateLimitError), 0.0),
        (made(failures.RateLimitError, x_request_id="1"), 0.0),
        (made(failures.BadRequestError), 0.0),
    ],
)
def test_a_call_in_doubt_costs_what_it_is_likely_to_and_one_that_was_turned_down_nothing(
    provider: Provider, store: ReplyStore, error: Exception, usd: float
) -> None:
    provider.faults = [error]
    llm = service(store, retries=0)
    ((_, failure),) = llm.complete_many([question("q")])

    assert isinstance(failure, Failure)
    assert store.spent_usd("run", "stage") == llm.meter.usd == pytest.approx(usd)
    assert (store.count("run"), held(store)) == (0, 0)


def test_a_call_that_never_left_costs_nothing(provider: Provider, store: ReplyStore) -> None:
    error = made(failures.APIConnectionError)
    error.__cause__ = OSError()
    error.__cause__.__context__ = httpx.ConnectError("refused")
    provider.faults = [error]
    ask_one(store, retries=0)

    assert store.spent_usd() == 0


def test_an_error_that_is_its_own_cause_is_no_endless_loop(provider: Provider, store: ReplyStore) -> None:
    error, other = made(failures.APIConnectionError), OSError()
    error.__cause__, other.__cause__ = other, error
    provider.faults = [error]

    assert isinstance(ask_one(store, retries=0), Failure)


def test_what_is_likely_is_learnt_from_the_replies(provider: Provider, store: ReplyStore) -> None:
    provider.output_tokens = lambda: 20
    ask(store, *questions(5))
    before = store.spent_usd()
    provider.faults = [made(failures.Timeout)]
    ask_one(store, retries=0)

    assert store.spent_usd() - before == pytest.approx(0.2)


def test_what_is_likely_follows_the_replies_as_they_come(provider: Provider, store: ReplyStore) -> None:
    provider.output_tokens = lambda: 20
    llm = service(store, retries=0)
    list(llm.complete_many(questions(60)))
    before = store.spent_usd()
    provider.faults = [made(failures.Timeout)]
    list(llm.complete_many([question("q")]))

    assert 0.2 <= store.spent_usd() - before <= 0.3


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_reply_is_a_failure_that_was_paid_for(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    async def empty(**asked: Any) -> Any:
        answer = await provider(**asked)
        answer.choices[0].message.content = text  # a model that spent all its tokens on thinking
        return answer

    monkeypatch.setattr(litellm, "acompletion", empty)

    assert ask_one(store) == Failure("the reply is empty", 1.0)
    assert store.get(service(store).key(question("q"))) is None
    assert store.spent_usd("run") == pytest.approx(1.0)
    assert held(store) == 0


def test_half_a_character_in_a_reply_does_not_end_the_run(provider: Provider, store: ReplyStore) -> None:
    provider.text = "cut \ud83d"  # what is left of an emoji; no database takes it
    reply = ask_one(store)

    assert isinstance(reply, Reply)
    assert reply.text.encode()


@given(st.text(st.characters()))
def test_no_request_has_more_tokens_than_its_estimate(text: str) -> None:
    assert most_tokens(question(text)) >= len(text.encode("utf-8", "replace"))
    assert most_tokens(question(text, schema={"type": "object"})) > most_tokens(question(text))


# Ending early


def test_closing_the_iterator_cancels_what_is_open_and_keeps_that_it_may_have_been_billed(
    provider: Provider, store: ReplyStore, caplog: pytest.LogCaptureFixture
) -> None:
    ask(store, question("stored"))
    provider.hangs = lambda text: text.startswith("slow")
    requests = [question("stored"), question("first"), *(question(f"slow {n}") for n in range(3)), question("last")]
    replies = service(store, concurrency=4).complete_many(requests)
    assert [next(replies)[0] for _ in range(3)] == [0, 1, 5]
    assert provider.open == 3
    replies.close()
    gc.collect()

    assert (provider.open, held(store), store.count("run")) == (0, 0, 3)
    assert store.spent_usd("run") == pytest.approx(3 + 3)
    assert caplog.messages == []


def test_an_error_of_the_caller_cancels_what_is_open_too(provider: Provider, store: ReplyStore) -> None:
    provider.hangs = lambda text: text == "question 1"
    with pytest.raises(LookupError), closing(service(store, concurrency=2).complete_many(questions(9))) as replies:
        for index, _ in replies:
            if index > 1:
                raise LookupError

    assert (provider.open, held(store)) == (0, 0)


def test_closing_while_calls_ask_for_dollars_leaves_nothing_held(provider: Provider, store: ReplyStore) -> None:
    ask(store, question("stored"))
    replies = service(store, concurrency=4).complete_many([question("stored"), *questions(4)])
    next(replies)
    replies.close()

    assert len(provider.calls) == 1
    assert held(store) == 0


def test_a_call_that_waits_for_its_turn_is_cancelled_free_of_charge(
    provider: Provider, store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shut(Turnstile):
        async def admit(self, tokens: float) -> None:
            if provider.calls:
                await asyncio.Event().wait()
            await super().admit(tokens)

    monkeypatch.setattr(client, "turnstile", lambda *_: Shut(Rate(math.inf, None)))
    provider.output_tokens = lambda: 50
    with closing(service(store, concurrency=4).complete_many(questions(9))) as replies:
        next(replies)

    assert store.spent_usd() == pytest.approx(0.5)
    assert held(store) == 0


# Telling


def test_the_meter_counts_what_happened(provider: Provider, store: ReplyStore) -> None:
    ask(store, question("stored"))
    provider.faults = [
        made(failures.RateLimitError),
        made(failures.ServiceUnavailableError, x="y"),
        made(failures.BadRequestError),
    ]
    llm = service(store, concurrency=1)
    list(llm.complete_many([question("stored"), *questions(4)]))

    meter = llm.meter
    assert (meter.calls, meter.replies, meter.failed, meter.stored) == (6, 3, 1, 1)
    assert meter.refusals == 1, "of the two that were tried again"
    assert meter.usd == pytest.approx(3.0)


Told = list[tuple[str, Request, Answer, Purpose]]


def traced(share: float, number: int = 200, requests: list[Request] | None = None) -> Told:
    told: Told = []
    with closing(ReplyStore(":memory:")) as store:
        llm = service(store, trace=lambda *call: told.append(call), trace_share=share, concurrency=16)
        list(llm.complete_many(requests or questions(number)))
    return told


@pytest.mark.usefixtures("provider")
def test_a_trace_is_told_of_a_share_of_the_calls_always_the_same() -> None:
    some, again, more = ({call[1].messages[1]["content"] for call in traced(share)} for share in (0.25, 0.25, 0.75))

    assert some == again < more
    assert 25 <= len(some) <= 75
    assert (len(traced(0.0)), len(traced(1.0))) == (0, 200)


@pytest.mark.usefixtures("provider")
def test_a_trace_is_told_model_request_answer_and_purpose() -> None:
    ((model, request, answer, purpose),) = traced(1.0, requests=[question("q")])

    assert (model, request, purpose) == (MODEL, question("q"), PURPOSE)
    assert isinstance(answer, Reply)
    assert answer.text == "q"


def test_a_trace_is_told_of_failures_and_never_of_stored_replies(provider: Provider, store: ReplyStore) -> None:
    ask(store, question("stored"))
    told: Told = []
    provider.faults = [made(failures.BadRequestError)]
    ask(store, question("stored"), question("q"), trace=lambda *call: told.append(call), trace_share=1.0)

    assert [call[1] for call in told] == [question("q")]
    assert isinstance(told[0][2], Failure)


def test_a_trace_is_told_of_what_was_given_up(provider: Provider, store: ReplyStore) -> None:
    told: Told = []
    provider.faults = [made(failures.Timeout)]
    ask(store, question("q"), retries=0, trace=lambda *call: told.append(call), trace_share=1.0)

    assert len(told) == 1
