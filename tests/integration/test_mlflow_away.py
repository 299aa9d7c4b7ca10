"""An MLflow server that is not there is told in a line, at once: MLflow's own client tries for four minutes."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from click.testing import CliRunner

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.places import check_mlflow
from tests.http_double import Listening, QuietHandler
from tools.servers import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    return tmp_path


@pytest.fixture(params=["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said of a server that is away, whose address holds a password."""
    port = free_port()
    monkeypatch.setenv(request.param, f"http://ann:sesame@127.0.0.1:{port}/mlflow")
    return f"{request.param}=http://127.0.0.1:{port}/mlflow: no MLflow server answers there"


@pytest.fixture
def odd() -> Iterator[str]:
    """The address of something that speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as guest:
                guest.sendall(b"220 mail.example ready\r\n")
                guest.recv(1000)

        greeting = threading.Thread(target=greet, daemon=True)
        greeting.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        greeting.join(60)


@pytest.mark.parametrize(
    "command",
    [
        "review",
        "promote --reason because",
        "reject --version 1 --reason because",
        "rollback --reason because",
        "export --to out",
        "report --run 1",
        "run",
        "coverage --source traces:service --out out",
        "cost --workload traces:service",
        "judge-report --run 1",
        "plan --set judging.prompt=prompts:/judge/1",
    ],
)
def test_a_command_that_needs_it_says_so_at_once(away: str, command: str) -> None:
    result = CliRunner().invoke(cli, command.split())

    (told,) = [line for line in result.stderr.splitlines() if "no MLflow server" in line]
    assert away in told
    assert "mlflow server" in told.partition("): ")[2]
    assert "sesame" not in result.output
    assert result.exit_code == 2


def test_a_plan_tells_it_and_goes_on(away: str) -> None:
    result = CliRunner().invoke(cli, ["plan"])

    assert f"before a run: {away}" in result.stderr
    assert result.exit_code == 0


@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_a_server_that_answers_is_there_whatever_it_says(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    asked = []

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.reply(b"", status)

    server = Listening(Handler)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server.url.replace('//', '//ann:sesame@')}/behind/")
    check_mlflow()
    server.close()
    assert asked == ["/behind/health"]


@pytest.mark.parametrize("wrap", [URLError, lambda error: error])
def test_whose_certificate_is_not_known_here_is_there(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Exception], Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise wrap(ssl.SSLCertVerificationError(1, "self-signed certificate"))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setattr("mlflow_llamaduo.places.urlopen", refuse)
    check_mlflow()


def test_what_speaks_no_http_is_no_server(monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", odd)
    with pytest.raises(ConfigError, match="no MLflow server answers there"):
        check_mlflow()


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "./mlruns", "databricks", "databricks://profile"])
def test_where_there_is_no_server_to_ask_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    check_mlflow()
