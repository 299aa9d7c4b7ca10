import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.exchange import Failure, Reply
from mlflow_llamaduo.service_llm.store import ReplyStore

REPLY = Reply("text", 100, 20, 0.5)


@pytest.fixture
def store() -> Iterator[ReplyStore]:
    store = ReplyStore(":memory:")
    yield store
    store.close()


def put(store: ReplyStore, key: str, reply: Reply = REPLY, *, run: str = "run", stage: str = "judge") -> None:
    store.put(key, reply, run=run, stage=stage, model="model")


def test_a_reply_is_found_by_its_key_and_by_no_other(store: ReplyStore) -> None:
    put(store, "key")

    assert store.get("key") == REPLY
    assert store.get("other") is None


def test_the_first_reply_under_a_key_stays(store: ReplyStore) -> None:
    put(store, "key")
    put(store, "key", Reply("another", 1, 1, 9.0), run="later")

    assert store.get("key") == REPLY
    assert store.spent_usd("later") == 0


def test_dollars_are_counted_by_run_and_by_stage(store: ReplyStore) -> None:
    for number, (run, stage) in enumerate([("a", "base"), ("a", "round 0"), ("a", "round 0"), ("b", "base")]):
        put(store, str(number), run=run, stage=stage)

    assert (store.spent_usd("a"), store.spent_usd("b"), store.spent_usd("c")) == (1.5, 0.5, 0)
    assert (store.spent_usd("a", "base"), store.spent_usd("a", "round 0")) == (0.5, 1.0)
    assert (store.count("a"), store.count("c")) == (3, 0)


def test_a_failure_that_was_paid_for_is_no_reply_and_its_dollars_count(store: ReplyStore) -> None:
    put(store, "key")
    for _ in range(2):
        store.lose(Failure("the reply is empty", 0.25), run="run", stage="judge", model="model")

    assert store.spent_usd("run") == store.spent_usd("run", "judge") == 1.0
    assert store.spent_usd("run", "base") == store.spent_usd("other") == 0
    assert store.count("run") == 1


def test_replies_outlive_the_process_that_paid_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "replies.sqlite"
    first = ReplyStore(path)
    put(first, "key")
    first.close()
    second = ReplyStore(path)

    assert second.get("key") == REPLY
    assert second.spent_usd("run") == 0.5
    second.close()


def test_two_processes_see_each_others_replies(tmp_path: Path) -> None:
    one, other = ReplyStore(tmp_path / "replies.sqlite"), ReplyStore(tmp_path / "replies.sqlite")
    put(one, "one")
    put(other, "other")

    assert one.get("other") == other.get("one") == REPLY
    one.close()
    other.close()


def test_a_closed_store_answers_nothing() -> None:
    store = ReplyStore(":memory:")
    store.close()

    with pytest.raises(sqlite3.ProgrammingError):
        store.get("key")


@given(st.text(), st.integers(0, 2**40), st.floats(0, 1e6))
def test_any_reply_is_read_as_it_was_written(text: str, tokens: int, usd: float) -> None:
    store = ReplyStore(":memory:")
    reply = Reply(text, tokens, tokens + 1, usd)
    put(store, "key", reply)

    assert store.get("key") == reply
    store.close()
