from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.serving.keys import Gatekeeper, read_keys


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Run":
    monkeypatch.setenv("LLAMADUO_HOME", str(tmp_path / "home"))
    return Run(tmp_path / "home" / "keys.json")


class Run:
    """The command, and the file that it writes."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["keys", *arguments])


def test_a_key_is_printed_once_and_opens_the_gate(run: Run) -> None:
    made = run("add", "--name", "team", "--rpm", "60", "--task", "closed_qa", "--task", "coding")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret not in run.file.read_text()
    (key,) = read_keys(run.file)
    assert (key.name, key.requests_per_minute, key.tasks) == ("team", 60, ("closed_qa", "coding"))
    assert Gatekeeper([key]).who(f"Bearer {secret}", None) == key
    assert secret not in run("list").output


def test_keys_are_listed_with_their_limits_and_revoked_by_name(run: Run) -> None:
    run("add", "--name", "one", "--rpm", "60", "--tpm", "9000")
    run("add", "--name", "two", "--task", "coding")
    lines = run("list").stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [["one", "60", "9000", "all"], ["two", "-", "-", "coding"]]
    assert run("revoke", "--name", "one").exit_code == 0
    assert [key.name for key in read_keys(run.file)] == ["two"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "--name", "there"), "there has a key already: llamaduo keys revoke --name there"),
        (("add", "--name", "no spaces"), "name: String should match"),
        (("revoke", "--name", "nobody"), "there is none of nobody"),
        (("list", "--file", "nowhere.json"), "llamaduo keys add makes the file"),
    ],
)
def test_what_cannot_be_is_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    run("add", "--name", "there")
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output
