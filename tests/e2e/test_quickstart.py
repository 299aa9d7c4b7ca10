"""docs/quickstart.md as a reader types it: every command of the page, in its order, in one shell, from a fresh clone.

What is not as on the page: the project is small and its base model tiny, so that a round takes seconds; packages come
out of the environment that runs the test instead of a registry; ports are free ones, as the page's may be taken.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from tests.faults import PATIENCE_S, ROOT, workspace
from tests.tiny import tiny_base
from tools.servers import free_ports

pytestmark = pytest.mark.e2e

PAGE = ROOT / "docs/quickstart.md"
PORTS = (":5000", ":8000")
"""Those that the page names."""
END = "@@ ended with"


def commands() -> list[str]:
    """The commands of the page, without their remarks."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).removeprefix("$ ").split("\n$ ")
    return [re.sub(r"\s+# [^\n]*$", "", line.strip()) for line in lines]


class Shell:
    """One bash, as a reader has it: what a command sets, the next one has."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._log = folder.parent / "said.log"
        self._read = 0
        with self._log.open("wb") as log:
            self._bash = subprocess.Popen(
                ["bash"], cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def type(self, line: str) -> str:
        """A command to its end; what it said. It must end well."""
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{{ {line}\n}} </dev/null\nended=$?; echo; echo {END} $ended\n")
        self._bash.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(rf"^{END} (\d+)$", said := self._new(), re.MULTILINE)):
            assert time.monotonic() < deadline, said
            assert self._bash.poll() is None, said
            time.sleep(0.1)
        self._read += len(said)
        assert found[1] == "0", f"{line}\n{said}"
        return said[: found.start()]

    @contextmanager
    def goes_on(self, line: str, ready: str) -> Iterator[None]:
        """A server, from when it answers until Ctrl-C. Bash itself would have its children know no Ctrl-C."""
        path, active = self.type('echo "$PATH"; echo "$VIRTUAL_ENV"').split()
        log = self._folder.parent / f"{line.split(maxsplit=1)[0]}.log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self._folder,
                env={**self._environment, "PATH": path, "VIRTUAL_ENV": active},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not answers(ready):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGINT)
                server.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        """The window is closed."""
        self._bash.kill()
        self._bash.communicate()

    def _new(self) -> str:
        return self._log.read_text(errors="replace")[self._read :]


def answers(url: str) -> bool:
    """Whether there is a good answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds, but with a small project."""
    folder = tmp_path_factory.mktemp("quickstart") / "clone"
    ours = ("MLproject", "python_env.yaml", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
    shutil.copytree(
        ROOT / "mlflow_llamaduo", folder / "mlflow_llamaduo", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ours:
        shutil.copy(ROOT / name, folder)
    workspace(folder, tiny_base(folder.parent / "base").path, epochs=1)
    duo = folder / "projects/closed_qa/duo.yaml"
    duo.write_text(yaml.safe_dump({**yaml.safe_load(duo.read_text()), "gate": {"judged_share": 95}}))
    return folder


@pytest.fixture(scope="module")
def ports(clone: Path) -> dict[str, str]:
    """The page's ports, and those that are free here."""
    found = {port: f":{free}" for port, free in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    profile = clone / "projects/profiles/local.yaml"
    tree = yaml.safe_load(profile.read_text())
    tree["serving"]["port"] = int(found[":8000"][1:])
    profile.write_text(yaml.safe_dump(tree))
    return found


@pytest.fixture
def shell(clone: Path, ports: dict[str, str]) -> Iterator[Shell]:
    """A reader's shell: nothing of ours is set, and pip asks no registry."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LLAMADUO_", "PYENV", "PYTHONPATH"))}
    path = [p for p in kept["PATH"].split(os.pathsep) if "pyenv" not in p]
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), *path]),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that there is none
        "MLFLOW_PORT": ports[":5000"][1:],
        "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that nothing here needs
    }
    shell = Shell(clone, {**kept, **own})
    yield shell
    shell.close()


def with_packages(clone: Path) -> None:
    """What pip would have fetched: the packages that this test runs with, before those that venv brings."""
    (site,) = (clone / ".venv/lib").glob("python*/site-packages")
    there = [path for path in sys.path if path.endswith("site-packages")]
    (site / "fetched.pth").write_text(f"import sys; sys.path[:0] = {there!r}\n")


def test_every_command_of_the_page_does_what_the_page_says(clone: Path, ports: dict[str, str], shell: Shell) -> None:
    new, run, look, serve, ask = commands()

    shell.type(new)
    assert shell.type("command -v pip").strip() == str(clone / ".venv/bin/pip")
    with_packages(clone)

    said = shell.type(run)
    assert "Successfully installed mlflow-llamaduo" in said
    table = [line.split("  ")[0] for line in said.splitlines() if re.match(r"(?:base|round \d) ", line)]
    assert table == ["base", "round 0"]
    assert "stopped: passed. What to do next:" in said
    assert re.search(r"^ +llamaduo serve --task closed_qa", said, re.MULTILINE)
    check_runs(clone)

    with shell.goes_on(look, f"http://127.0.0.1{ports[':5000']}/health"):
        pass
    with shell.goes_on(serve, f"http://127.0.0.1{ports[':8000']}/healthz"):
        answer = json.loads(shell.type(ask.replace(":8000", ports[":8000"])))
    assert answer["object"] == "chat.completion"
    assert answer["model"].startswith("closed_qa")
    assert answer["usage"]["completion_tokens"] > 0


def check_runs(clone: Path) -> None:
    """What the page says of MLflow: experiment, tags, nested runs, version and aliases."""
    uri = f"sqlite:///{clone}/mlflow.db"
    client = MlflowClient(uri, uri)
    (default,) = [each for each in client.search_experiments() if each.name == "Default"]
    runs = client.search_runs([default.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["llamaduo.offline_stand_ins"] == "true"
    assert "stand-in" in parent.data.tags["mlflow.note.content"]
    assert len(parent.inputs.dataset_inputs) == 3
    assert [run.data.tags["llamaduo.round"] for run in runs if run is not parent] == ["0"]
    aliases = client.get_registered_model("llamaduo-closed_qa").aliases
    assert {name: int(number) for name, number in aliases.items()} == {"champion": 1, "challenger": 1}
