"""What docs/how-to/review.md says of webhooks, word by word: its two programs, and a real MLflow server."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import mlflow
import pytest
from cryptography.fernet import Fernet
from mlflow import MlflowClient

from tests.mlflow_server import mlflow_server
from tools.servers import free_port

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "review.md"
SECRET = "not to be guessed"
NAME = "llamaduo-closed_qa"


def program(folder: Path, name: str) -> Path:
    """A program of the page, as a file."""
    (text,) = re.findall(rf'```python title="{re.escape(name)}"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.S)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The page's receiver: its URL, and the file of what it prints."""
    port = free_port()
    printed = tmp_path / "printed"
    command = [sys.executable, str(program(tmp_path, "receive.py")), str(port)]
    with printed.open("w") as out, (tmp_path / "errors").open("w") as errors:
        environment = {**os.environ, "LLAMADUO_WEBHOOK_SECRET": SECRET}
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment)
    url = f"http://127.0.0.1:{port}/challengers"
    try:
        until(lambda: listens(url), "the receiver does not listen")
        yield url, printed
    finally:
        process.kill()
        process.wait()


def listens(url: str) -> bool:
    try:
        return httpx.post(url, content=b"{}").status_code == 401
    except httpx.HTTPError:
        return False


def until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def test_a_challenger_is_announced_and_nothing_else_is_believed(
    tmp_path: Path, receiver: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, printed = receiver
    opened = {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https"}
    key = Fernet.generate_key().decode()
    with mlflow_server(tmp_path / "server", MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=key, **opened) as server:
        mlflow.set_tracking_uri(server.uri)
        announce(tmp_path, url, server.uri)
        client = MlflowClient()
        client.create_registered_model(NAME)
        run = client.create_run(client.create_experiment("test")).info
        for _ in range(2):
            client.create_model_version(NAME, source=run.artifact_uri, run_id=run.run_id)
        client.set_registered_model_alias(NAME, "champion", "1")
        client.set_registered_model_alias(NAME, "challenger", "2")
        until(
            lambda: bool(printed.read_text()), "nothing was announced: " + (server.folder / "server.log").read_text()
        )
        assert printed.read_text() == "llamaduo review --task closed_qa --version 2\n"

        server.stop()  # the secret is still to be read after a restart, with the same key
        server.start()
        client.set_registered_model_alias(NAME, "challenger", "1")
        until(lambda: len(printed.read_text().splitlines()) == 2, (server.folder / "server.log").read_text())
    assert printed.read_text().splitlines()[1] == "llamaduo review --task closed_qa --version 1"
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")


def announce(folder: Path, url: str, server: str) -> None:
    """Run the page's program that makes the webhook."""
    environment = {**os.environ, "LLAMADUO_WEBHOOK_SECRET": SECRET, "MLFLOW_TRACKING_URI": server}
    command = [sys.executable, str(program(folder, "announce.py")), url]
    made = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert made.stdout.strip()


def test_a_server_that_was_not_opened_posts_to_no_machine_of_its_own_network(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "server") as server:
        mlflow.set_tracking_uri(server.uri)
        for url, why in (("http://127.0.0.1:9", "scheme"), ("https://127.0.0.1:9", "public")):
            with pytest.raises(mlflow.exceptions.MlflowException, match=why):
                MlflowClient().create_webhook(name="w", url=url, events=["model_version_alias.created"])
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")


def test_the_receiver_refuses_what_is_forged_old_or_changed(receiver: tuple[str, Path]) -> None:
    url, printed = receiver
    body = b'{"entity": "model_version_alias", "data": {"name": "llamaduo-x", "alias": "challenger", "version": "1"}}'
    now = int(time.time())
    good = headers(body, now)
    assert httpx.post(url, content=body, headers=good).status_code == 204
    forged = {**good, "X-MLflow-Signature": "v1,AAAA"}
    for content, wrong in (
        (body, forged),
        (body, {}),
        (body, headers(body, now - 3600)),
        (body, {**good, "X-MLflow-Timestamp": str(now + 1)}),
        (body, {**good, "X-MLflow-Delivery-Id": "another"}),
        (body.replace(b"1", b"9"), good),
    ):
        assert httpx.post(url, content=content, headers=wrong).status_code == 401
    assert printed.read_text() == "llamaduo review --task x --version 1\n"


def headers(body: bytes, at: int) -> dict[str, str]:
    """As MLflow signs, by its own code."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    signature = _generate_hmac_signature(SECRET, "one", str(at), body.decode())
    return {"X-MLflow-Delivery-Id": "one", "X-MLflow-Timestamp": str(at), "X-MLflow-Signature": signature}
