"""One call through litellm: what a provider answers over HTTP becomes a reply, a failure or something that passes."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import httpx
import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.call import Passing, api_key, ask, read, redacted
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from mlflow_llamaduo.service_llm.rate import Limits
from mlflow_llamaduo.service_llm.terms import Terms, terms

SECRET = "planted-0123456789abcdef"
QUESTION = Request(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which town?"}))
FREE = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0, "json_schema": False}
PRICED = Terms("openai/x", 2.0, 0.5, 10.0, None, None, True, "a test")
Handler = Callable[[httpx.Request], httpx.Response]
NUMBERS = count()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("X_API_KEY", SECRET)
    return SECRET


def exchange(handler: Handler, request: Request = QUESTION, **settings: Any) -> tuple[Any, Limits]:
    """Ask a server that `handler` plays; nothing leaves the process."""
    base = f"http://server{next(NUMBERS)}/v1"  # litellm keeps its clients by address
    llm = ServiceModel.model_validate({"model": "openai/x", "api_base": base, **FREE, **settings})

    async def asked() -> tuple[Any, Limits]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as session:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(litellm, "aclient_session", session)
                return await ask(terms(llm), llm, request)

    return asyncio.run(asked())


def completion(content: str | None = "Arn", finish: str = "stop", **usage: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    known = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, **usage}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice], "usage": known}


def says(status: int, body: Any, **headers: str) -> Handler:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, json=body, headers=named)


def refusal(message: str, **more: str) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


# Replies


def test_an_answer_is_a_reply_with_its_tokens_its_price_and_its_seconds() -> None:
    reply, found = exchange(says(200, completion()), input_usd_per_mtok=2, output_usd_per_mtok=10)

    assert (reply.text, reply.input_tokens, reply.output_tokens, reply.cut) == ("Arn", 12, 3, False)
    assert reply.usd == pytest.approx((12 * 2 + 3 * 10) / 1e6)
    assert 0 < reply.seconds < 60
    assert found == Limits()


def test_the_limits_of_an_answer_are_found() -> None:
    _, found = exchange(
        says(
            200,
            completion(),
            x_ratelimit_limit_requests="500",
            x_ratelimit_remaining_requests="3",
            x_ratelimit_reset_requests="1m2s",
            x_ratelimit_remaining_tokens="29000",
        )
    )

    assert found == Limits(requests_left=3, requests_reset_s=62, requests_limit=500, tokens_left=29000)


def test_what_is_sent_is_what_was_asked(key: str) -> None:
    sent: list[httpx.Request] = []

    def server(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json=completion())

    schema = {"name": "verdict", "strict": True, "schema": {"type": "object"}}
    settings: dict[str, Any] = {"api_key_env": "X_API_KEY", "max_tokens": 77, "json_schema": True}
    exchange(server, Request(QUESTION.messages, schema), **settings)

    (request,) = sent
    body = httpx.Response(200, content=request.content).json()
    assert request.headers["authorization"] == f"Bearer {key}"
    assert body["messages"] == [dict(message) for message in QUESTION.messages]
    assert body["max_tokens"] == 77
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert not {"temperature", "top_p", "seed"} & set(body)


def test_an_error_is_not_asked_again_behind_our_back() -> None:
    asked: list[httpx.Request] = []

    def server(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(500, json=refusal("boom"), headers={"retry-after": "0"})

    exchange(server)
    assert len(asked) == 1


@pytest.mark.parametrize("content", [None, ""])
def test_an_empty_answer_is_a_failure_that_costs_its_tokens(content: str | None) -> None:
    failure, _ = exchange(says(200, completion(content, "length")), input_usd_per_mtok=1, output_usd_per_mtok=1)

    assert isinstance(failure, Failure)
    assert failure.reason == "the reply is empty"
    assert failure.usd == pytest.approx(15e-6)


def test_an_answer_that_the_provider_held_back_is_a_failure() -> None:
    failure, _ = exchange(says(200, completion("Ar", "content_filter")), input_usd_per_mtok=1, output_usd_per_mtok=1)

    assert isinstance(failure, Failure)
    assert "content_filter" in failure.reason
    assert failure.usd > 0


def test_an_answer_that_is_cut_says_so() -> None:
    reply, _ = exchange(says(200, completion("Ar", "length")))

    assert isinstance(reply, Reply)
    assert reply.cut


def answer(text: str | None = "Arn", *, cached: int | None = None, choices: int = 1) -> Any:
    details = SimpleNamespace(cached_tokens=cached)
    usage = SimpleNamespace(prompt_tokens=1_000_000, completion_tokens=100_000, prompt_tokens_details=details)
    choice = SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop")
    return SimpleNamespace(choices=[choice] * choices, usage=usage)


@pytest.mark.parametrize(("cached", "usd"), [(None, 3.0), (0, 3.0), (400_000, 2.4), (1_000_000, 1.5)])
def test_cached_tokens_of_the_prompt_are_cheaper(cached: int | None, usd: float) -> None:
    reply = read(answer(cached=cached), PRICED)

    assert isinstance(reply, Reply)
    assert reply.usd == pytest.approx(usd)


def test_a_share_of_the_price_is_paid_where_there_is_a_discount() -> None:
    assert read(answer(), PRICED, price=0.5).usd == pytest.approx(1.5)
    assert read(answer(choices=0), PRICED, price=0.5).usd == pytest.approx(1.5)


@given(st.text(st.characters()))
def test_half_characters_become_whole_ones(text: str) -> None:
    reply = read(answer(text + "\ud83d"), PRICED)

    assert isinstance(reply, Reply)
    assert reply.text.encode().decode() == reply.text


def test_an_answer_without_its_tokens_is_not_free() -> None:
    body = {name: value for name, value in completion().items() if name != "usage"}
    reply, _ = exchange(says(200, body), input_usd_per_mtok=1, output_usd_per_mtok=1)

    assert reply.usd > 0


# What passes


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_status_that_passes_is_told_with_its_wait(status: int) -> None:
    passing, found = exchange(says(status, refusal("over and out"), retry_after="7"))

    assert isinstance(passing, Passing)
    assert "over and out" in passing.reason
    assert passing.refused == (status == 429)
    assert passing.in_doubt == (status in (408, 504)), "a gateway's timeout may be billed"
    assert found.retry_after_s == 7


@pytest.mark.parametrize(
    ("error", "in_doubt"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout("too slow"), False),
        (httpx.PoolTimeout("no place"), False),
        (httpx.ReadTimeout("too slow"), True),
        (httpx.WriteTimeout("too slow"), True),
        (httpx.ReadError("reset"), True),
        (httpx.RemoteProtocolError("disconnected without an answer"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_call_that_may_have_arrived_is_in_doubt_and_one_that_did_not_is_not(
    error: Exception, in_doubt: bool
) -> None:
    def server(_: httpx.Request) -> httpx.Response:
        raise error

    passing, _ = exchange(server)

    assert isinstance(passing, Passing)
    assert (passing.refused, passing.in_doubt) == (False, in_doubt)


def test_an_answer_that_is_no_json_may_have_been_billed() -> None:
    passing, _ = exchange(lambda _: httpx.Response(200, text="<html>", headers={"content-type": "application/json"}))

    assert isinstance(passing, Passing)
    assert passing.in_doubt


@pytest.mark.parametrize("status", [409, 520, 524, 529])
def test_the_other_errors_of_a_server_pass_too(status: int) -> None:
    assert isinstance(exchange(says(status, refusal("overloaded")))[0], Passing)


# What does not pass


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_a_failure_that_costs_nothing(status: int) -> None:
    failure, _ = exchange(says(status, refusal("no such thing")))

    assert isinstance(failure, Failure)
    assert "no such thing" in failure.reason
    assert failure.usd == 0


def test_a_request_that_is_too_long_says_so() -> None:
    text = "This model's maximum context length is 10 tokens."
    failure, _ = exchange(says(400, refusal(text, code="context_length_exceeded")))

    assert isinstance(failure, Failure)
    assert failure.reason.startswith("the request is longer than the model's context")


def test_content_that_is_refused_says_so() -> None:
    text = "invalid_request_error: rejected by our safety system, content_policy_violation"
    failure, _ = exchange(says(400, refusal(text, code="content_policy_violation")))

    assert isinstance(failure, Failure)
    assert failure.reason.startswith("the provider refused the content")


@pytest.mark.parametrize("status", [401, 404, 403])
def test_a_refused_key_or_an_unknown_model_ends_the_run(status: int) -> None:
    with pytest.raises(ConfigError, match=r"openai/x cannot be used: .*no entry"):
        exchange(says(status, refusal("no entry")))


NO_CREDIT = [
    (429, refusal("You exceeded your current quota, please check your plan.", code="insufficient_quota")),
    (400, refusal("Your credit balance is too low to access the Anthropic API.")),
    (402, refusal("Insufficient Balance")),
]


@pytest.mark.parametrize(("status", "body"), NO_CREDIT)
def test_where_no_credit_is_left_the_run_ends(status: int, body: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="openai/x cannot be used"):
        exchange(says(status, body))


@pytest.mark.parametrize(("status", "outcome"), [(400, Failure), (422, Failure), (500, Passing)])
def test_a_request_about_credit_that_is_quoted_back_does_not_end_the_run(status: int, outcome: type) -> None:
    quoted = "cannot read the message 'My app shows insufficient_quota, what is it?'"

    assert isinstance(exchange(says(status, refusal(quoted)))[0], outcome)


# Secrets


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_a_key_that_is_quoted_back_is_shown_by_its_name(key: str, status: int) -> None:
    body = refusal(f"Incorrect API key provided: {key}. You can find yours at https://here/?k={key}&x=1.")
    try:
        outcome, _ = exchange(says(status, body), api_key_env="X_API_KEY")
        text = outcome.reason
    except ConfigError as error:
        text = str(error)
        assert error.__suppress_context__  # a traceback would quote it

    assert key not in text
    assert "$X_API_KEY" in text


def shown(error: BaseException | str, **settings: Any) -> str:
    return redacted(error, ServiceModel.model_validate({"model": "openai/x", **settings}))


def test_a_key_is_hidden_whatever_its_variable_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_LOGIN", SECRET)
    assert SECRET in shown(f"Bad {SECRET}")
    assert shown(f"Bad {SECRET}", api_key_env="MY_LOGIN") == "Bad $MY_LOGIN"


@pytest.mark.parametrize("name", ["OTHER_API_KEY", "hf_token", "CLIENT_SECRET"])
def test_the_other_secrets_of_the_environment_are_hidden_too(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)

    assert shown(f"Bad {SECRET}") == f"Bad ${name}"


@pytest.mark.parametrize("before", range(270, 305, 3))
def test_not_even_a_part_of_a_key_is_shown_where_a_long_error_is_cut(key: str, before: int) -> None:
    text = shown(f"{'x' * before}{key} and more")

    assert len(text) <= 300
    assert "planted" not in text


def test_an_error_is_one_line_with_its_kind() -> None:
    assert shown(ValueError("it\n  broke\r\n twice")) == "ValueError: it broke twice"


def test_a_key_that_begins_like_another_is_hidden_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_API_KEY", SECRET)
    monkeypatch.setenv("B_API_KEY", SECRET + "-rest-of-the-other")

    assert "rest" not in shown(f"Bad {SECRET}-rest-of-the-other")


@pytest.fixture
def openai_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    yield


@pytest.mark.usefixtures("openai_key")
def test_a_server_of_ones_own_is_not_sent_the_key_of_a_provider() -> None:
    sent: list[str] = []

    def server(request: httpx.Request) -> httpx.Response:
        sent.append(str(request.headers))
        return httpx.Response(200, json=completion())

    exchange(server)
    assert SECRET not in sent[0]
    assert api_key(PRICED, ServiceModel(model="openai/x")) is None  # litellm takes it from the environment
