"""The client against a server that enforces limits and breaks, over real HTTP."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.openai_server import Server, running
from mlflow_llamaduo import doctor
from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.files import to_jsonl
from mlflow_llamaduo.service_llm import call
from mlflow_llamaduo.service_llm.client import Budget, Purpose, Reply, ReplyStore, Request, ServiceLLM

KEY = "sk-planted-0123456789"
ROWS = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "BACKOFF_S", 0.01)
    monkeypatch.setenv("TEST_SERVICE_KEY", KEY)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    with ReplyStore(tmp_path / "replies.sqlite") as store:
        yield store


def service(server: Server, store: ReplyStore, **settings: Any) -> ServiceLLM:
    known = {
        "input_usd_per_mtok": 100,
        "output_usd_per_mtok": 100,
        "max_tokens": 50,
        "api_key_env": "TEST_SERVICE_KEY",
    }
    asked = ServiceModel.model_validate({"model": "openai/local", "api_base": server.url, **known, **settings})
    return ServiceLLM(asked, store=store, budget=Budget(1000), purpose=Purpose("run", "judge"))


def questions(count: int) -> Iterator[Request]:
    return (Request(({"role": "user", "content": f"question {n}"},)) for n in range(count))


def test_every_request_ends_once_whatever_breaks_on_the_way(store: ReplyStore) -> None:
    faults = {"fault_429": 0.05, "fault_500": 0.05, "fault_drop": 0.05, "fault_half": 0.05, "fault_hang": 0.02}
    with running(**faults, hang=60, seed=3) as server:
        answers = dict(service(server, store, timeout_s=1, retries=8).complete_many(questions(200)))
        stats = server.stats()

    assert sorted(answers) == list(range(200))
    assert all(isinstance(answer, Reply) for answer in answers.values())
    assert store.count("run") == stats["distinct_ok"] == 200
    assert stats["paid_twice"] == 0
    assert min(stats[fault] for fault in ("fault_429", "fault_500", "drop", "half", "hang")) > 0
    assert store.held() == 0
    replies = sum(answer.usd for answer in answers.values())
    assert store.spent_usd("run") > replies, "calls that may have been billed are counted"


def test_a_limit_is_kept_without_being_told(store: ReplyStore) -> None:
    with running(rpm=1200) as server:  # 20 in any second
        answers = dict(service(server, store, concurrency=16, rpm=None).complete_many(questions(100)))
        stats = server.stats()

    assert all(isinstance(answer, Reply) for answer in answers.values())
    assert max(stats["ok_per_second"]) <= 40
    assert stats["total"] < 200, "it slows down instead of hammering"


def test_within_a_configured_limit_hardly_anything_is_refused(store: ReplyStore) -> None:
    with running(rpm=1200, latency=(0.05, 0.2)) as server:
        service_llm = service(server, store, rpm=1200)
        assert len(dict(service_llm.complete_many(questions(100)))) == 100
        assert server.stats()["refused_429"] <= 10  # how few is for the benchmark, on a quiet machine, to say


STEP = """
import signal, sys
from mlflow_llamaduo.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.argv = ["llamaduo", *sys.argv[1:]]
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with responses to judge."""
    profiles = tmp_path / "projects" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "local.yaml").write_text("base_model: some/model\n")
    (tmp_path / "projects" / "closed_qa").mkdir()
    (tmp_path / "projects" / "closed_qa" / "duo.yaml").write_text("gate: 70\n")
    rows = [{"id": f"{n}", "instruction": f"Which {n}?", "reference": "Arn", "response": "Arn"} for n in range(ROWS)]
    (tmp_path / "responses.jsonl").write_text(to_jsonl(rows))
    return tmp_path


def judge_step(folder: Path, server: Server) -> "subprocess.Popen[str]":
    prices = [f"--set=service_llm.judge.{side}_usd_per_mtok=1" for side in ("input", "output")]
    command = ["judge", "--in", "responses.jsonl", "--out", "verdicts.jsonl", "--service-llm", "openai/local"]
    command += ["--api-base", server.url, "--api-key-env", "TEST_SERVICE_KEY", "--repeats", "1", "--concurrency", "4"]
    return subprocess.Popen(
        [sys.executable, "-c", STEP, *command, *prices],
        cwd=folder,
        env={**os.environ, "LLAMADUO_PROJECTS": str(folder / "projects")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stored(folder: Path) -> int:
    file = folder / ".llamaduo" / "replies.sqlite"
    if not file.exists():
        return 0
    try:
        with sqlite3.connect(file) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def wait_for_replies(folder: Path, step: "subprocess.Popen[str]", count: int) -> None:
    deadline = time.monotonic() + 60
    while stored(folder) < count:
        assert step.poll() is None, step.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_step_that_is_stopped_goes_on_and_asks_only_for_what_is_missing(folder: Path, stop: signal.Signals) -> None:
    with running(latency=(0.1, 0.2)) as server:
        step = judge_step(folder, server)
        wait_for_replies(folder, step, 10)
        step.send_signal(stop)
        _, told = step.communicate(timeout=30)
        assert step.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL)
        assert not (folder / "verdicts.jsonl").exists()
        assert stop != signal.SIGINT or "stopped; the same command goes on from here" in told

        kept = stored(folder)
        before = server.stats()["total"]
        again = judge_step(folder, server)
        _, told = again.communicate(timeout=60)
        assert f"{ROWS} of {ROWS} judgings without a verdict" in told  # this server's replies are none
        assert server.stats()["total"] - before == ROWS - kept
        assert server.stats()["paid_twice"] <= 4, "only calls that were open"
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == ROWS
    assert KEY not in told
    assert not any(KEY.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_two_processes_do_not_write_one_file_together(folder: Path) -> None:
    with running(latency=(3, 4)) as server:
        first = judge_step(folder, server)
        wait_for_replies(folder, first, 1)
        second = judge_step(folder, server)
        _, told = second.communicate(timeout=60)
        assert second.returncode == 1
        assert "verdicts.jsonl is being written by another process" in told
        first.kill()
        first.communicate()


def findings(server: Server, store: ReplyStore, **settings: Any) -> dict[str, doctor.Finding]:
    llm = service(server, store, **settings).llm
    return {finding.what: finding for finding in doctor.examine(llm, store)}


def test_the_doctor_reports_what_the_server_says(store: ReplyStore) -> None:
    with running(rpm=600) as server:
        found = findings(server, store, rpm=300)
    assert found["reachable"].good
    assert found["key"].detail == "accepted ($TEST_SERVICE_KEY)"
    assert "300 requests" in found["limits"].detail
    assert "the server says 600 requests" in found["limits"].detail
    assert store.spent_usd("doctor") > 0


def test_the_doctor_finds_a_schema_that_is_not_followed_and_a_server_that_is_not_there(store: ReplyStore) -> None:
    with running() as server:
        assert findings(server, store, json_schema=True)["JSON schema"].good is False
    assert findings(server, store, retries=0)["reachable"].good is False


def test_closing_leaves_nothing_running_and_keeps_what_may_be_billed(store: ReplyStore) -> None:
    with running(latency=(0.05, 0.1)) as server:
        answers = service(server, store, concurrency=8).complete_many(questions(10_000))
        for _ in range(30):
            next(answers)
        answers.close()
        time.sleep(0.2)
        total = server.stats()["total"]
        time.sleep(0.3)
        assert server.stats()["total"] == total
    assert store.held() == 0
    assert store.count("run") >= 30
    assert store.spent_usd("run") > store.count("run") * 120 * 100 / 1e6
