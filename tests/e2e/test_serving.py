"""The endpoint: a real Ray Serve, a real HTTP client."""

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.conftest import ROOT, Workspace

pytestmark = pytest.mark.e2e

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "The mill was built by Anna Berg in 1911.\n\nWho built the mill?"}
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def endpoint(workspace: Workspace, passed: "subprocess.CompletedProcess[str]") -> Iterator[str]:
    port = free_port()
    process = workspace.start("llamaduo", "serve", "--task", "closed_qa", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while True:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the endpoint never became ready"
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=1).read()
            break
        except OSError:
            time.sleep(0.5)
    yield url
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.fixture
def client(endpoint: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{endpoint}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_openai_client_gets_an_answer_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="closed_qa", messages=QUESTION, temperature=0, max_tokens=20)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 20
    assert answer.usage.prompt_tokens > 20


def test_a_streamed_answer_is_the_same_text(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="closed_qa", messages=QUESTION, temperature=0, max_tokens=20)
    stream = client.chat.completions.create(
        model="closed_qa", messages=QUESTION, temperature=0, max_tokens=20, stream=True
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks).strip() == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


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
def test_a_body_that_is_no_request_is_a_400_in_the_shape_of_openai(endpoint: str, body: bytes) -> None:
    request = urllib.request.Request(f"{endpoint}/v1/chat/completions", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)
    assert caught.value.code == 400
    assert set(json.loads(caught.value.read())["error"]) == {"message", "type", "param", "code"}


def test_serve_run_finds_the_same_application_in_one_import(workspace: Workspace, endpoint: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from serve.app import app; print(type(app).__name__)"
    out, err = workspace.start("python", "-c", code).communicate(timeout=120)
    assert out.strip() == "Application", err


def test_a_port_in_use_is_said_before_anything_starts(workspace: Workspace, endpoint: str) -> None:
    port = endpoint.rsplit(":", 1)[1]
    done = workspace.llamaduo("serve", "--port", port)
    assert done.returncode == 2
    assert f"port {port} is in use" in done.stderr
