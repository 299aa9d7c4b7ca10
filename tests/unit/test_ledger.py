"""What an alignment has cost: the service LLM and our own machines in one book, under one budget."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_llamaduo.core.ledger import Entry, by_stage, figures, taken_apart, usd
from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.fit_places import answering_machine, training_machine
from mlflow_llamaduo.service_llm.budget import Budget
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply
from mlflow_llamaduo.service_llm.store import ReplyStore
from mlflow_llamaduo.service_llm.work import Account, Machine
from tests.unit.builders import project

DEAR = Machine("8 x A100-40G", 3600.0)  # a dollar a second


@pytest.fixture
def store() -> Iterator[ReplyStore]:
    with ReplyStore(":memory:") as store:
        yield store


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr("mlflow_llamaduo.service_llm.work.time.monotonic", lambda: now[0])
    yield now


def account(store: ReplyStore, cap: float = 100.0, **likely_s: float) -> Account:
    return Account(store, Budget(cap), "run", {f"round 0: {stage}": s for stage, s in likely_s.items()})


def fits(store: ReplyStore, most: float) -> bool:
    """Whether a call of so many dollars would be made under a cap of 100."""
    with store.writing():
        purpose = Purpose("run", "round 0: judge")
        hold = store.hold(most, model="gpt", purpose=purpose, cap_usd=100.0, folder_usd=1e9)
        store.release(hold)
    return hold is not None


def replied(store: ReplyStore, stage: str, spent: float, key: str = "key", run: str = "run") -> None:
    with store.writing():
        reply = Reply("text", 100, 10, spent, seconds=2.0)
        store.put(key, reply, model="gpt", purpose=Purpose(run, stage))


def test_replies_losses_and_work_are_one_ledger_by_round_and_stage(store: ReplyStore, clock: list[float]) -> None:
    replied(store, "round 0: judge", 0.5)
    replied(store, "round 0: judge", 0.25, key="another")
    replied(store, "base: judge", 0.125, key="base")
    replied(store, "round 0: judge", 9.0, key="not ours", run="another run")
    with store.writing():
        store.lose(Failure("empty", 0.125), model="gpt", purpose=Purpose("run", "round 0: judge"))
    with account(store).at_work(DEAR, "round 0: train"):
        clock[0] += 7

    assert account(store).ledger() == (
        Entry("base", "judge", 0.125, 2.0, 1, 100, 10),
        Entry("round 0", "judge", 0.75 + 0.125, 4.0, 2, 200, 20),
        Entry("round 0", "train", 7.0, 7.0),
    )
    assert store.spent_usd("run") == pytest.approx(usd(account(store).ledger()))


def test_a_stage_that_fails_is_paid_for_as_far_as_it_went(store: ReplyStore, clock: list[float]) -> None:
    with pytest.raises(KeyboardInterrupt), account(store).at_work(DEAR, "round 0: train"):
        clock[0] += 3
        raise KeyboardInterrupt

    assert store.spent_usd("run") == pytest.approx(3)
    assert store.held() == 0


def test_training_that_is_likely_to_pass_the_budget_does_not_begin(store: ReplyStore) -> None:
    replied(store, "base: judge", 41.0)
    began = False

    with pytest.raises(
        BudgetError, match=r"41\.0000 of 100 dollars.*round 0: train.*may cost 60\.0000.*--budget-usd"
    ):
        with account(store, train=60).at_work(DEAR, "round 0: train"):
            began = True
    assert not began
    assert store.held() == 0


def test_what_training_holds_and_has_cost_is_not_there_for_calls(store: ReplyStore, clock: list[float]) -> None:
    """One budget over both."""
    with account(store, train=60).at_work(DEAR, "round 0: train"):
        assert (fits(store, 40), fits(store, 41)) == (True, False)
        clock[0] += 20
    assert (fits(store, 80), fits(store, 81)) == (True, False)


def test_what_a_stage_has_paid_is_no_longer_set_aside_for_it(store: ReplyStore, clock: list[float]) -> None:
    paid = []
    with account(store, train=80).at_work(DEAR, "round 0: train") as goes_on:
        for _ in range(4):
            clock[0] += 30
            goes_on()
            paid.append(store.spent_usd("run"))
            assert (fits(store, 20), fits(store, 21)) == (paid[-1] < 80, False)
    assert paid == [0, 60, 60, 120], "what it takes longer than planned is paid, too"
    assert store.spent_usd("run") == 120
    assert usd(account(store).ledger()) == 120


def test_a_machine_without_a_price_holds_nothing_and_its_seconds_are_kept(
    store: ReplyStore, clock: list[float]
) -> None:
    with account(store, cap=0.0, train=1e9).at_work(Machine("1 x this machine"), "round 0: train"):
        clock[0] += 5

    assert account(store).ledger() == (Entry("round 0", "train", 0.0, 5.0),)


KILLED = """
import os, sys, time
from pathlib import Path
from mlflow_llamaduo.service_llm import work
from mlflow_llamaduo.service_llm.budget import Budget
from mlflow_llamaduo.service_llm.store import ReplyStore
now = [0.0]
work.time.monotonic = lambda: now[0]
account = work.Account(ReplyStore(Path(sys.argv[1])), Budget(1000), "run", {"round 0: train": 500.0})
with account.at_work(work.Machine("gpu", 3600.0), "round 0: train") as goes_on:
    for _ in range(9):
        now[0] += 30
        goes_on()
    os._exit(9)
"""


def test_a_training_that_is_killed_is_paid_for_to_within_a_minute(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False, env={**os.environ})
    assert done.returncode == 9

    with ReplyStore(file) as store:
        (entry,) = store.ledger("run")
        assert 210 <= store.spent_usd("run") <= 270
        assert entry.seconds == pytest.approx(store.spent_usd("run")), "a dollar a second"
        assert store.held() == 0


def test_sums_by_stage_are_in_the_order_in_which_a_round_goes() -> None:
    ledger = (
        Entry("round 1", "judge", 1.0, 5, 10, 1000, 100),
        Entry("round 0", "judge", 2.0, 5, 10, 1000, 100),
        Entry("round 0", "train", 4.0, 60.0),
    )

    assert list(by_stage(ledger)) == ["train", "judge"]
    assert by_stage(ledger)["judge"] == Entry("all", "judge", 3.0, 10, 20, 2000, 200)
    assert usd(ledger, ("judge",)) == 3.0
    assert usd(ledger) == 7.0
    assert figures(ledger) == {
        "train_usd": 4.0,
        "train_seconds": 60.0,
        "judge_usd": 3.0,
        "judge_seconds": 10.0,
        "judge_input_tokens": 2000.0,
        "judge_output_tokens": 200.0,
    }


def test_a_stage_is_taken_apart_into_where_and_what() -> None:
    assert taken_apart("round 12: judge") == ("round 12", "judge")
    assert taken_apart("judge") == ("", "judge")


def test_workers_and_actors_cost_what_is_configured_or_what_the_price_book_says() -> None:
    here = project(finetune={"gpus_per_worker": 0, "workers": 2}, inference={"gpus": 0})
    assert (training_machine(here).usd_per_hour, answering_machine(here).usd_per_hour) == (0, 0)
    own = project(
        finetune={"usd_per_hour": 6.0, "workers": 2, "accelerator_type": "A100-80G"},
        inference={"actors": 3, "accelerator_type": "A100-80G"},
    )
    assert training_machine(own) == Machine("2 x A100-80G", 12.0)
    assert answering_machine(own) == Machine("3 x A100-80G", 18.0)
    typical = project(finetune={"workers": 2, "accelerator_type": "L4"})
    assert training_machine(typical).usd(1800) == pytest.approx(training_machine(typical).usd_per_hour / 2) != 0


def test_a_price_book_of_ones_own_says_what_a_gpu_costs(tmp_path: Path) -> None:
    book = tmp_path / "prices.yaml"
    book.write_text("gpus:\n  L4: {usd_per_hour: 0.25, date: 2026-11, source: our contract}\n")
    asked = project(finetune={"accelerator_type": "L4", "workers": 4}, costs={"prices": str(book)})

    assert training_machine(asked) == Machine("4 x L4", 1.0)
