"""Replies and dollars on disk: nothing is lost, nothing is counted twice, no cap is passed."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply
from mlflow_llamaduo.service_llm.store import Batch, ReplyStore

REPLY = Reply("text", 100, 20, 0.5, cut=True, seconds=1.25)
RUN = Purpose("run", "judge")
ROOT = Path(__file__).parents[2]

HOLDER = """
import sys, time
from pathlib import Path
from mlflow_llamaduo.service_llm.exchange import Purpose
from mlflow_llamaduo.service_llm.store import ReplyStore

store = ReplyStore(Path(sys.argv[1]))
with store.writing():
    hold = store.hold(0.75, model="model", purpose=Purpose("run", "judge"), cap_usd=1.0, folder_usd=1.0)
    store.sent(hold, 0.25)
print("held", flush=True)
time.sleep(60)
"""

VERSION_1 = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, usd REAL NOT NULL, cut INTEGER NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX replies_by_run ON replies (run);
CREATE TABLE losses (
    run TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL, reason TEXT NOT NULL, usd REAL NOT NULL,
    created REAL NOT NULL
);
"""


@pytest.fixture
def store() -> Iterator[ReplyStore]:
    store = ReplyStore(":memory:")
    yield store
    store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


def put(store: ReplyStore, key: str, reply: Reply = REPLY, *, purpose: Purpose = RUN, **more: Any) -> None:
    with store.writing():
        store.put(key, reply, model="model", purpose=purpose, **more)


def lose(store: ReplyStore, usd: float, *, purpose: Purpose = RUN, hold: int | None = None) -> None:
    with store.writing():
        store.lose(Failure("it broke", usd), model="model", purpose=purpose, hold=hold)


def hold(
    store: ReplyStore,
    most: float,
    likely: float = 0.0,
    *,
    purpose: Purpose = RUN,
    cap: float = 1.0,
    folder: float = float("inf"),
) -> int | None:
    with store.writing():
        hold = store.hold(most, model="model", purpose=purpose, cap_usd=cap, folder_usd=folder)
        if hold is not None and likely:
            store.sent(hold, likely)
        return hold


def held(store: ReplyStore) -> int:
    with store.writing():
        return store.held()


# Replies


def test_a_reply_is_found_by_its_key_and_by_no_other(store: ReplyStore) -> None:
    put(store, "key")

    assert store.get("key") == REPLY
    assert store.get("other") is None


def test_a_second_reply_under_a_key_is_paid_for_and_not_kept(store: ReplyStore) -> None:
    put(store, "key")
    put(store, "key", Reply("another", 1, 1, 9.0), purpose=Purpose("later", "judge"))

    assert store.get("key") == REPLY
    assert (store.spent_usd("run"), store.spent_usd("later"), store.spent_usd()) == (0.5, 9.0, 9.5)
    assert (store.count("run"), store.count("later")) == (1, 0)


def test_dollars_are_counted_by_run_and_by_stage_and_in_all(store: ReplyStore) -> None:
    for number, (run, stage) in enumerate([("a", "base"), ("a", "round 0"), ("a", "round 0"), ("b", "base")]):
        put(store, str(number), purpose=Purpose(run, stage))

    assert (store.spent_usd("a"), store.spent_usd("b"), store.spent_usd("c"), store.spent_usd()) == (1.5, 0.5, 0, 2.0)
    assert (store.spent_usd("a", "base"), store.spent_usd("a", "round 0"), store.spent_usd("a", "c")) == (0.5, 1.0, 0)
    assert (store.count("a"), store.count("c")) == (3, 0)


def test_a_failure_that_was_paid_for_is_no_reply_and_its_dollars_count(store: ReplyStore) -> None:
    put(store, "key")
    for _ in range(2):
        lose(store, 0.25)

    assert store.spent_usd("run") == store.spent_usd("run", "judge") == store.spent_usd() == 1.0
    assert store.spent_usd("run", "base") == store.spent_usd("other") == 0
    assert store.count("run") == 1


def test_replies_outlive_the_process_that_paid_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "replies.sqlite"
    with closing(ReplyStore(path)) as first:
        put(first, "key")
    with closing(ReplyStore(path)) as second:
        assert second.get("key") == REPLY
        assert second.spent_usd("run") == 0.5


def test_two_stores_on_a_file_see_each_others_replies(path: Path) -> None:
    with closing(ReplyStore(path)) as one, closing(ReplyStore(path)) as other:
        put(one, "one")
        put(other, "other")

        assert one.get("other") == other.get("one") == REPLY
        assert one.spent_usd("run") == other.spent_usd("run") == 1.0


def test_a_closed_store_answers_nothing() -> None:
    store = ReplyStore(":memory:")
    store.close()

    with pytest.raises(sqlite3.ProgrammingError):
        store.get("key")


@given(st.text(), st.integers(0, 2**40), st.floats(0, 1e6), st.booleans(), st.floats(0, 1e6))
def test_any_reply_is_read_as_it_was_written(text: str, tokens: int, usd: float, cut: bool, seconds: float) -> None:
    reply = Reply(text, tokens, tokens + 1, usd, cut, seconds)
    with closing(ReplyStore(":memory:")) as store:
        put(store, text, reply, purpose=Purpose(text, text))

        assert store.get(text) == reply
        assert store.spent_usd(text, text) == usd


def test_what_is_typical_is_the_mean_over_the_latest_of_a_models_replies_in_any_round(store: ReplyStore) -> None:
    for number, (tokens, seconds) in enumerate([(1000, 9.0), (10, 1.0), (20, 3.0), (30, 0.0)]):
        put(store, str(number), Reply("text", tokens, 2 * tokens, 0, seconds=seconds), purpose=in_round(number))
    put(store, "other", Reply("text", 7, 7, 0), purpose=Purpose("run", "synthesis"))

    latest = store.typical("model", "judge", latest=3)
    assert latest is not None
    assert (latest.replies, latest.input_tokens, latest.output_tokens, latest.seconds) == (3, 20, 40, 2.0)
    assert store.typical("model", "train") is store.typical("another", "judge") is None


def in_round(number: int) -> Purpose:
    return Purpose("run", f"round {number}: judge" if number else "judge")


# Transactions


def test_an_error_in_a_transaction_takes_back_all_of_it(store: ReplyStore) -> None:
    kept = hold(store, 0.5, 0.25)
    with pytest.raises(ZeroDivisionError), store.writing():
        store.put("key", REPLY, model="model", purpose=RUN, hold=kept)
        store.lose(Failure("it broke", 0.25), model="model", purpose=RUN)
        raise ZeroDivisionError

    assert store.get("key") is None
    assert store.spent_usd() == 0
    assert held(store) == 1


def test_what_is_not_committed_is_not_read_by_another_thread(path: Path) -> None:
    with closing(ReplyStore(path)) as store, ThreadPoolExecutor(1) as threads:
        with store.writing():
            store.put("key", REPLY, model="model", purpose=RUN)
            assert threads.submit(store.get, "key").result() is None
            assert threads.submit(store.spent_usd).result() == 0
        assert threads.submit(store.get, "key").result() == REPLY


def test_one_thread_writes_while_another_reads(path: Path) -> None:
    def write(store: ReplyStore) -> None:
        for number in range(60):
            put(store, str(number))

    with closing(ReplyStore(path)) as store, ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write, store)
        counts = []
        while not writing.done():
            counts.append(store.count("run"))
            assert store.spent_usd("run") >= 0.5 * counts[-1]
            assert (store.get(str(counts[-1] - 1)) is None) == (counts[-1] == 0)
        writing.result()

        assert counts == sorted(counts)
        assert (store.count("run"), store.spent_usd("run")) == (60, 30.0)


@pytest.mark.parametrize("where", [":memory:", "a file"])
def test_many_threads_write_into_one_store(path: Path, where: str) -> None:
    def add(number: int) -> None:
        for part in range(20):
            put(shared, f"{number} {part}")

    with closing(ReplyStore(path if where == "a file" else where)) as shared:
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(add, range(6)))
        assert (shared.count("run"), shared.spent_usd()) == (120, 60.0)


def test_many_threads_open_a_new_file_at_once(path: Path) -> None:
    def add(number: int) -> None:
        with closing(ReplyStore(path)) as store:
            put(store, str(number))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(add, range(6)))
    with closing(ReplyStore(path)) as store:
        assert (store.count("run"), store.spent_usd()) == (6, 3.0)


# Holds


def test_what_is_held_is_not_free_until_it_is_released(store: ReplyStore) -> None:
    first = hold(store, 0.75)
    assert first is not None
    assert hold(store, 0.5) is None
    with store.writing():
        store.release(first)

    assert held(store) == 0
    assert hold(store, 0.5) is not None


def test_a_hold_may_use_up_the_cap_and_not_pass_it(store: ReplyStore) -> None:
    put(store, "key")

    assert hold(store, 0.51) is None
    assert hold(store, 0.5) is not None


def test_a_reply_and_a_failure_free_what_was_held_for_them(store: ReplyStore) -> None:
    put(store, "key", hold=hold(store, 1.0, cap=9))
    put(store, "key", hold=hold(store, 1.0, cap=9))
    lose(store, 0.25, hold=hold(store, 1.0, cap=9))
    lose(store, 0.0, hold=hold(store, 1.0, cap=9))

    assert held(store) == 0
    assert store.spent_usd() == 1.25


def test_other_runs_have_their_own_cap_and_share_the_folders(store: ReplyStore) -> None:
    other = Purpose("other", "judge")

    assert hold(store, 1.0) is not None
    assert hold(store, 0.1) is None
    assert hold(store, 1.0, purpose=other, folder=1.5) is None
    assert hold(store, 0.5, purpose=other, folder=1.5) is not None


def test_dollars_of_other_runs_count_towards_the_folders_cap(store: ReplyStore) -> None:
    put(store, "key")

    assert hold(store, 0.6, purpose=Purpose("other", "judge"), folder=1.0) is None
    assert hold(store, 0.5, purpose=Purpose("other", "judge"), folder=1.0) is not None


CALLS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("ab"), st.floats(0.01, 1), st.floats(0, 1), st.booleans()), max_size=15
)


@settings(max_examples=15)
@given(CALLS, st.floats(0, 2), st.floats(0, 3))
def test_two_stores_on_a_file_together_never_pass_a_cap(
    calls: list[tuple[bool, str, float, float, bool]], cap: float, folder: float
) -> None:
    with tempfile.TemporaryDirectory() as new:
        path = Path(new) / "replies.sqlite"
        with closing(ReplyStore(path)) as one, closing(ReplyStore(path)) as other:
            late = []
            for number, (first, run, most, share, ends) in enumerate(calls):
                purpose = Purpose(run, "judge")
                kept = hold(one if first else other, most, purpose=purpose, cap=cap, folder=folder)
                if kept is not None:
                    late.append((str(number), Reply("text", 1, 1, share * most), purpose, kept))
                if ends and late:
                    key, reply, purpose, kept = late.pop(0)
                    put(other if first else one, key, reply, purpose=purpose, hold=kept)
            for key, reply, purpose, kept in late:
                put(one, key, reply, purpose=purpose, hold=kept)

            assert max(other.spent_usd("a"), other.spent_usd("b")) <= cap + 1e-9
            assert other.spent_usd() <= folder + 1e-9
            assert held(other) == 0


def test_two_stores_that_hold_at_the_same_time_share_the_cap(path: Path) -> None:
    with closing(ReplyStore(path)) as one, closing(ReplyStore(path)) as other, ThreadPoolExecutor(2) as threads:
        start = threading.Barrier(2, timeout=60)

        def take(store: ReplyStore) -> int:
            start.wait()
            return sum(hold(store, 1.0, cap=15.0) is not None for _ in range(12))

        assert sum(threads.map(take, (one, other))) == 15
        assert held(one) == held(other) == 15


# Processes that end


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds 0.75 dollars, likely 0.25."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_what_another_living_process_holds_counts_and_what_a_killed_one_held_is_lost(path: Path) -> None:
    with holder(path) as child, closing(ReplyStore(path)) as store:
        assert held(store) == 1
        assert store.spent_usd() == 0
        assert hold(store, 0.5) is None

        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with closing(ReplyStore(path)) as next_:
            assert held(next_) == 0
            assert next_.spent_usd("run", "judge") == next_.spent_usd() == 0.25
            assert hold(next_, 0.75) is not None
    with closing(ReplyStore(path)) as last:  # the loss is told once, not at every opening
        assert last.spent_usd() == 0.25


def test_a_store_that_is_open_already_finds_out_too(path: Path) -> None:
    with closing(ReplyStore(path)) as store:
        with holder(path):
            assert held(store) == 1

        assert held(store) == 0
        assert store.spent_usd() == 0.25


def test_a_killed_process_that_nobody_has_waited_for_holds_nothing(path: Path) -> None:
    with holder(path) as child, closing(ReplyStore(path)) as store:
        os.kill(child.pid, signal.SIGKILL)
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)

        assert held(store) == 0


def test_a_later_process_with_the_number_of_a_dead_one_is_not_taken_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(ReplyStore(path)) as store:
        hold(store, 0.75, 0.25)
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 100)

        assert held(store) == 0
        assert store.spent_usd() == 0.25


@pytest.mark.parametrize("seconds", [-1, 1])
def test_a_clock_that_is_set_right_by_a_second_kills_no_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    before = psutil.Process.create_time
    with closing(ReplyStore(path)) as store:
        hold(store, 0.75, 0.25)
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: before(process) + seconds)

        assert held(store) == 1


def test_a_process_on_another_machine_is_believed_for_a_day(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(ReplyStore(path)) as there:
        hold(there, 0.75, 0.25)
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        with closing(ReplyStore(path)) as here:
            assert held(here) == 1
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + 23 * 3600)
            assert held(here) == 1
            monkeypatch.setattr(time, "time", lambda: now + 25 * 3600)
            assert held(here) == 0
            assert here.spent_usd() == 0.25


def test_closing_loses_what_is_open_here_and_leaves_the_others_alone(path: Path) -> None:
    with closing(ReplyStore(path)) as other:
        hold(other, 1.0, 0.5, cap=9)
        own = ReplyStore(path)
        for likely in (0.25, 0.125):
            hold(own, 1.0, likely, cap=9, purpose=Purpose("run", "synthesis"))
        own.close()

        assert other.spent_usd("run", "synthesis") == other.spent_usd() == 0.375
        assert held(other) == 1


# Batches


def test_a_batch_is_kept_until_it_is_closed(path: Path) -> None:
    batch = Batch("ours", ("k1", "k2"), 0.75, 5.0)
    with closing(ReplyStore(path)) as first, first.writing():
        assert first.open_batch(batch, model="model", purpose=RUN, cap_usd=1.0, folder_usd=1.0)
    with closing(ReplyStore(path)) as second:
        assert second.batches("model", "run") == [batch]
        assert second.batches("other", "run") == second.batches("model", "other") == []
        with second.writing():
            second.submitted("ours", "theirs")
        assert second.batches("model", "run") == [Batch("ours", ("k1", "k2"), 0.75, 5.0, "theirs")]
        with second.writing():
            second.close_batch("ours")
        assert second.batches("model", "run") == []
        assert second.spent_usd() == 0


def test_calls_and_batches_share_the_caps(store: ReplyStore) -> None:
    def open_(id_: str, most: float, folder: float = 9.0) -> bool:
        with store.writing():
            return store.open_batch(
                Batch(id_, (), most, 0.0), model="model", purpose=RUN, cap_usd=1.0, folder_usd=folder
            )

    assert open_("a", 0.5)
    assert not open_("b", 0.6)
    assert not open_("b", 0.4, folder=0.8)
    assert hold(store, 0.6) is None
    assert hold(store, 0.5) is not None
    assert not open_("b", 0.1)
    assert held(store) == 1, "a batch takes too long to wait for"
    assert store.batched_usd() == 0.5


# The first version of the file


def version_1(path: Path, replies: list[tuple[Any, ...]], losses: list[tuple[Any, ...]]) -> None:
    with closing(sqlite3.connect(path)) as old, old:
        old.executescript(VERSION_1)
        old.executemany("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", replies)
        old.executemany("INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?)", losses)


def test_a_file_of_the_first_version_keeps_its_replies_and_sums(path: Path) -> None:
    version_1(
        path,
        [
            ("k1", "a", "base", "model", "größer \0 🦙", 10, 5, 0.5, 0, 1.0),
            ("k2", "a", "round 0", "model", "cut", 20, 6, 0.25, 1, 2.0),
            ("k3", "b", "base", "model", "", 30, 7, 1.0, 0, 3.0),
        ],
        [("a", "base", "model", "empty", 0.125, 4.0), ("c", "base", "model", "empty", 2.0, 5.0)],
    )
    for _ in range(2):  # the second opening must not add them up again
        with closing(ReplyStore(path)) as store:
            assert store.get("k1") == Reply("größer \0 🦙", 10, 5, 0.5, False, 0.0)
            assert store.get("k2") == Reply("cut", 20, 6, 0.25, True, 0.0)
            assert [store.count(run) for run in "abc"] == [2, 1, 0]
            assert [store.spent_usd(run) for run in "abc"] == [0.875, 1.0, 2.0]
            assert store.spent_usd("a", "base") == 0.625
            assert store.spent_usd() == 3.875
            assert hold(store, 0.5, purpose=Purpose("a", "base"), cap=1.0) is None
    with closing(ReplyStore(path)) as store:
        put(store, "k4")
        assert store.get("k4") == REPLY
        assert store.spent_usd() == 4.375


def test_an_empty_file_of_the_first_version_is_opened_too(path: Path) -> None:
    version_1(path, [], [])
    with closing(ReplyStore(path)) as store:
        assert store.spent_usd() == 0
        put(store, "key")
        assert store.get("key") == REPLY


def test_two_threads_that_open_a_file_of_the_first_version_bring_it_over_once(path: Path) -> None:
    version_1(path, [("k1", "a", "base", "model", "text", 10, 5, 0.5, 0, 1.0)], [])

    def spent(_: int) -> float:
        with closing(ReplyStore(path)) as store:
            return store.spent_usd()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(spent, range(4))) == [0.5] * 4


def test_a_call_that_had_not_gone_out_yet_costs_nothing_when_its_process_ends(path: Path) -> None:
    first = ReplyStore(path)
    hold(first, 0.5)
    hold(first, 0.25, likely=0.125)
    first.close()

    with ReplyStore(path) as second:
        assert second.spent_usd() == 0.125
        assert held(second) == 0
