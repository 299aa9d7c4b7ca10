"""The endpoint: a real Ray Serve, a real HTTP client."""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.conftest import ROOT, Workspace
from tools.servers import answers, free_port

pytestmark = pytest.mark.e2e

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "The mill was built by Anna Berg in 1911.\n\nWho built the mill?"}
]


@pytest.fixture(scope="module")
def secrets(workspace: Workspace, passed: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    """API keys by name: one that may do all, one of three requests a minute, one for another task."""
    limits = {"all": (), "few": ("--rpm", "3"), "coder": ("--task", "coding")}
    return {
        name: workspace.llamaduo("keys", "add", "--name", name, *more).stdout.strip() for name, more in limits.items()
    }


@pytest.fixture(scope="module")
def endpoint(workspace: Workspace, secrets: dict[str, str]) -> Iterator[str]:
    port = free_port()
    process = workspace.start("llamaduo", "serve", "--task", "closed_qa", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while not answers(f"{url}/healthz"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the endpoint never became ready"
        time.sleep(0.5)
    yield url
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.fixture
def client(endpoint: str, secrets: dict[str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{endpoint}/v1", api_key=secrets["all"], max_retries=0) as client:
        yield client


def test_the_openai_client_gets_an_answer_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="closed_qa", messages=QUESTION, temperature=0, max_tokens=20)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 20
    assert answer.usage.prompt_tokens > 20


@pytest.mark.parametrize("more", [{}, {"stop": ["e", " b"]}, {"n": 3, "seed": 4, "temperature": 1.0}], ids=str)
def test_a_streamed_answer_has_the_text_and_usage_of_one_that_is_not(
    client: openai.OpenAI, more: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"model": "closed_qa", "messages": QUESTION, "temperature": 0, "max_tokens": 20, **more}
    whole = client.chat.completions.create(**asked)
    *chunks, last = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    assert last.usage == whole.usage
    for choice in whole.choices:
        own = [c.choices[0] for c in chunks if c.choices[0].index == choice.index]
        assert "".join(piece.delta.content or "" for piece in own) == choice.message.content
        assert [piece.finish_reason for piece in own if piece.finish_reason] == [choice.finish_reason]
    assert len(whole.choices) == more.get("n", 1)


def test_a_stop_string_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    def answer(**more: Any) -> str:
        found = client.chat.completions.create(
            model="closed_qa", messages=QUESTION, temperature=0, max_tokens=20, **more
        )
        return found.choices[0].message.content or ""

    whole = answer()
    stop = whole[len(whole) // 2 :][:2]
    assert answer(stop=stop) == whole[: whole.index(stop)].strip()


def test_the_likeliest_tokens_come_with_an_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="closed_qa", messages=QUESTION, temperature=0, max_tokens=5, logprobs=True, top_logprobs=2
    )
    assert answer.choices[0].logprobs is not None and answer.usage is not None
    content = answer.choices[0].logprobs.content or []
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0
        assert token.token == token.top_logprobs[0].token, "greedy takes the likeliest"
        assert bytes(token.bytes or []).decode() == token.token


def test_earlier_turns_a_system_prompt_and_parts_are_read(client: openai.OpenAI) -> None:
    turns: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."},
        *QUESTION,
        {"role": "assistant", "content": "Anna Berg"},
        {"role": "user", "content": [{"type": "text", "text": "When"}, {"type": "text", "text": " was that?"}]},
    ]

    def tokens(messages: list[ChatCompletionMessageParam]) -> int:
        found = client.chat.completions.create(model="closed_qa", messages=messages, temperature=0, max_tokens=2)
        assert found.usage is not None
        return found.usage.prompt_tokens

    assert tokens(turns[1:]) > tokens(QUESTION)
    assert tokens(turns) != tokens(turns[1:]), "the template's own system prompt was taken instead"
    assert tokens([*turns[:3], {"role": "user", "content": "When was that?"}]) == tokens(turns)


def test_a_short_answer_waits_for_no_long_ones_end(client: openai.OpenAI) -> None:
    long = client.chat.completions.create(
        model="closed_qa",
        messages=[{"role": "user", "content": "Tell a story."}],
        temperature=2,
        seed=1,
        max_tokens=300,
        stream=True,
    )
    next(iter(long))
    began = time.monotonic()
    client.chat.completions.create(model="closed_qa", messages=QUESTION, temperature=0, max_tokens=2)
    short = time.monotonic() - began
    rest = sum(1 for chunk in long if chunk.choices and chunk.choices[0].delta.content)
    assert time.monotonic() - began > short
    assert rest > 10, "the long answer had ended before the short one came"


def test_a_client_that_leaves_stops_its_answer(client: openai.OpenAI, endpoint: str) -> None:
    for _ in range(40):  # more than are written at once: who left and is written still would be in the way
        gone = client.chat.completions.create(
            model="closed_qa",
            messages=[{"role": "user", "content": "Tell a story."}],
            temperature=2,
            max_tokens=512,
            stream=True,
        )
        next(iter(gone))
        gone.close()
    # Written to their ends, they would take minutes.
    patient = client.with_options(timeout=60)
    answer = patient.chat.completions.create(model="closed_qa", messages=QUESTION, temperature=0, max_tokens=2)
    assert answer.choices[0].message.content


def test_without_a_key_nobody_is_answered(client: openai.OpenAI, endpoint: str) -> None:
    stranger = client.with_options(api_key="ld-guessed")
    with pytest.raises(openai.AuthenticationError, match="the API key is not known") as caught:
        stranger.chat.completions.create(model="closed_qa", messages=QUESTION)
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    assert urllib.request.urlopen(f"{endpoint}/healthz", timeout=20).status == 200


def test_a_key_of_another_task_is_told_so(client: openai.OpenAI, secrets: dict[str, str]) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="may not ask 'closed_qa'"):
        client.with_options(api_key=secrets["coder"]).chat.completions.create(model="closed_qa", messages=QUESTION)


def test_who_asks_too_often_is_told_when_to_come_back(client: openai.OpenAI, secrets: dict[str, str]) -> None:
    few = client.with_options(api_key=secrets["few"])
    with pytest.raises(openai.RateLimitError, match="more than 3 requests a minute") as caught:
        for _ in range(6):
            few.chat.completions.create(model="closed_qa", messages=QUESTION, max_tokens=1)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 20


def test_a_body_that_is_too_long_is_a_413(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="closed_qa", messages=[{"role": "user", "content": "x" * 1_000_001}])
    assert caught.value.status_code == 413


def test_litellms_client_gets_the_same_answer(client: openai.OpenAI, endpoint: str, secrets: dict[str, str]) -> None:
    import litellm

    asked: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "max_tokens": 20}
    ours = client.chat.completions.create(model="closed_qa", **asked)
    own = {"api_base": f"{endpoint}/v1", "api_key": secrets["all"]}
    found = litellm.completion("openai/closed_qa", **own, **asked)
    assert found.choices[0].message.content == ours.choices[0].message.content
    pieces = litellm.completion("openai/closed_qa", **own, stream=True, **asked)
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == ours.choices[0].message.content


def test_an_unknown_model_is_a_404_that_names_what_there_is(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="closed_qa"):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)


def test_a_prompt_that_is_too_long_is_a_400_with_figures(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="8192"):
        client.chat.completions.create(model="closed_qa", messages=[{"role": "user", "content": "word " * 9000}])


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": "closed_qa"}', b'{"model": "closed_qa", "messages": []}', b"\xff\xfe"],
    ids=["empty", "cut", "list", "no messages", "empty messages", "not UTF-8"],
)
def test_a_body_that_is_no_request_is_a_400_in_the_shape_of_openai(
    endpoint: str, secrets: dict[str, str], body: bytes
) -> None:
    headers = {"authorization": f"Bearer {secrets['all']}"}
    request = urllib.request.Request(f"{endpoint}/v1/chat/completions", data=body, headers=headers, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)
    assert caught.value.code == 400
    assert set(json.loads(caught.value.read())["error"]) == {"message", "type", "param", "code"}


def test_serve_run_finds_the_same_application_in_one_import(workspace: Workspace, endpoint: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from serve.app import app; "
        "from mlflow_llamaduo.serving.run import ServeArgs; print(type(app(ServeArgs())).__name__)"
    )
    out, err = workspace.start("python", "-c", code).communicate(timeout=120)
    assert out.strip() == "Application", err


def test_a_port_in_use_is_said_before_anything_starts(workspace: Workspace, endpoint: str) -> None:
    port = endpoint.rsplit(":", 1)[1]
    done = workspace.llamaduo("serve", "--port", port)
    assert done.returncode == 2
    assert f"port {port} is in use" in done.stderr
