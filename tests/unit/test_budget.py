"""Dollars are set aside before a call and settled after it; the store's one writer does both."""

import asyncio
import sqlite3
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.service_llm import budget as module
from mlflow_llamaduo.service_llm.budget import Budget, Desk, settle
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply
from mlflow_llamaduo.service_llm.store import ReplyStore

RUN = Purpose("run", "judge")
CALLS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12)  # an estimate, and the share really paid


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.001)


@pytest.fixture
def store() -> Iterator[ReplyStore]:
    store = ReplyStore(":memory:")
    yield store
    store.close()


def run(story: Coroutine[Any, Any, object]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(5):
            await story

    asyncio.run(in_time())


async def hold(budget: Budget, desk: Desk, estimate: float, purpose: Purpose = RUN) -> int | None:
    return await budget.hold(desk, estimate, model="model", purpose=purpose)


def paid(usd: float) -> Reply:
    return Reply("text", 1, 1, usd)


async def pay(desk: Desk, key: str, usd: float, held: int | None, purpose: Purpose = RUN) -> None:
    await desk.do(partial(settle, desk.store, key, paid(usd), model="model", purpose=purpose, hold=held))


async def call(budget: Budget, desk: Desk, key: str, estimate: float, usd: float, turns: int = 1) -> float:
    held = await hold(budget, desk, estimate)
    for _ in range(turns):
        await asyncio.sleep(0)
    await pay(desk, key, usd, held)
    return usd


def spend(store: ReplyStore, usd: float, purpose: Purpose = RUN) -> None:
    with store.writing():
        store.lose(Failure("spent before", usd), model="model", purpose=purpose)


def held(store: ReplyStore) -> int:
    with store.writing():
        return store.held()


# The caps


def test_what_was_paid_is_spent_and_not_the_estimate(store: ReplyStore) -> None:
    run(call(Budget(1.0), Desk(store), "a", 0.9, 0.1))
    run(call(Budget(1.0), Desk(store), "b", 0.9, 0.2))

    assert store.spent_usd("run") == pytest.approx(0.3)
    assert held(store) == 0


@pytest.mark.parametrize(
    ("spent", "estimate", "fits"),
    [(0, 1.0, True), (0, 1.01, False), (0.75, 0.25, True), (1, 0, True), (1, 1e-9, False)],
)
def test_a_call_may_use_up_the_budget_and_not_pass_it(
    store: ReplyStore, spent: float, estimate: float, fits: bool
) -> None:
    spend(store, spent)

    if fits:
        run(call(Budget(1.0), Desk(store), "key", estimate, estimate))
        assert store.spent_usd() == spent + estimate
    else:
        with pytest.raises(BudgetError):
            run(call(Budget(1.0), Desk(store), "key", estimate, estimate))
        assert store.spent_usd() == spent


def test_the_error_says_what_was_spent_and_what_to_do(store: ReplyStore) -> None:
    spend(store, 0.9)

    with pytest.raises(
        BudgetError, match=r"0\.9000 of 1 dollars spent and .*may cost 0\.5000; .*--budget-usd and run"
    ):
        run(call(Budget(1.0), Desk(store), "key", 0.5, 0.5))


def test_the_error_tells_the_folders_cap_from_the_runs(store: ReplyStore) -> None:
    spend(store, 2.75, Purpose("another run", "judge"))

    with pytest.raises(BudgetError) as caught:
        run(call(Budget(1.0, folder_usd=3.0), Desk(store), "key", 0.5, 0.5))
    assert "2.7500 of 3 dollars spent in this folder" in str(caught.value)
    assert "--set limits.folder_budget_usd=" in str(caught.value)
    assert "--budget-usd" not in str(caught.value)


def test_a_call_without_a_price_holds_nothing_and_needs_no_budget(store: ReplyStore) -> None:
    spend(store, 9.0)

    async def free() -> None:
        assert await hold(Budget(0.0, folder_usd=0.0), Desk(store), 0.0) is None

    run(free())
    assert held(store) == 0


def test_a_call_waits_for_others_that_may_turn_out_cheaper(store: ReplyStore) -> None:
    async def both() -> None:
        budget, desk = Budget(1.0), Desk(store)
        first = await hold(budget, desk, 0.8)
        second = asyncio.create_task(call(budget, desk, "b", 0.8, 0.8))
        await asyncio.sleep(0.005)
        assert not second.done()
        await pay(desk, "a", 0.1, first)
        await second

    run(both())
    assert store.spent_usd("run") == pytest.approx(0.9)


def test_a_call_waits_for_those_of_another_store(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with closing(ReplyStore(path)) as one, closing(ReplyStore(path)) as other:

        async def both() -> None:
            budget = Budget(9.0, folder_usd=1.0)
            first = await hold(budget, Desk(one), 0.8)
            second = asyncio.create_task(hold(budget, Desk(other), 0.8, Purpose("another run", "judge")))
            await asyncio.sleep(0.005)
            assert not second.done()
            await pay(Desk(one), "a", 0.1, first)
            await second

        run(both())


BETWEEN = "what is freed between `hold` and `held`, two transactions, is not seen: the error is wrong"


def test_a_call_that_settles_while_another_asks_makes_room_for_it(store: ReplyStore) -> None:
    async def both() -> None:
        budget, desk = Budget(1.0), Desk(store)
        first = await hold(budget, desk, 0.8)
        second = asyncio.create_task(hold(budget, desk, 0.8))
        await asyncio.sleep(0)  # it has asked
        await pay(desk, "a", 0.1, first)
        assert await second

    run(both())


def test_what_a_dead_process_held_makes_room(store: ReplyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.writing():
        store.hold(0.8, model="model", purpose=RUN, cap_usd=1.0, folder_usd=1.0)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 5.0)  # the holder's number belongs to another now
    run(call(Budget(1.0), Desk(store), "key", 0.8, 0.8))


def test_a_budget_that_ran_out_says_so_after_any_sums_and_does_not_wait_for_ever(store: ReplyStore) -> None:
    async def spend_all() -> None:
        budget, desk = Budget(10.0), Desk(store)
        await asyncio.gather(call(budget, desk, "a", 0.1, 0.0), call(budget, desk, "b", 0.2, 0.0, turns=2))
        await call(budget, desk, "c", 11.0, 11.0)  # 0.1 + 0.2 - 0.1 - 0.2 > 0

    with pytest.raises(BudgetError):
        run(spend_all())


def test_a_failure_frees_what_was_held_and_costs_what_it_cost(store: ReplyStore) -> None:
    async def fail() -> None:
        desk = Desk(store)
        first = await hold(Budget(1.0), desk, 1.0)
        failure = Failure("empty", 0.25)
        await desk.do(partial(settle, store, "key", failure, model="model", purpose=RUN, hold=first))
        assert await hold(Budget(1.0), desk, 0.75) is not None

    run(fail())
    assert store.get("key") is None
    assert store.spent_usd("run", "judge") == 0.25


def test_a_call_that_is_cancelled_while_it_asks_for_dollars_holds_none(store: ReplyStore) -> None:
    async def cancelled() -> None:
        desk = Desk(store)
        asking = asyncio.create_task(hold(Budget(1.0), desk, 1.0))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await desk.drain()

    run(cancelled())
    assert held(store) == 0


@given(CALLS, st.floats(0, 4), st.floats(0, 4))
def test_however_many_calls_run_at_once_no_cap_is_passed(
    calls: list[tuple[float, float]], cap: float, folder: float
) -> None:
    outcomes: list[float | BaseException] = []
    with closing(ReplyStore(":memory:")) as store:

        async def all_at_once() -> None:
            desk, budget = Desk(store), Budget(cap, folder)
            waiting = (call(budget, desk, str(n), most, most * share, n % 3) for n, (most, share) in enumerate(calls))
            outcomes.extend(await asyncio.gather(*waiting, return_exceptions=True))

        run(all_at_once())
        assert all(isinstance(outcome, float | BudgetError) for outcome in outcomes)
        assert store.spent_usd() == pytest.approx(sum(outcome for outcome in outcomes if isinstance(outcome, float)))
        assert store.spent_usd() <= min(cap, folder) + 1e-9
        assert held(store) == 0


# The desk


class Slow(ReplyStore):
    """A store that counts its commits; a job can wait until it is let go."""

    def __init__(self) -> None:
        self.commits = 0
        self.go = threading.Event()
        super().__init__(":memory:")
        self.commits = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        with super().writing():
            yield
        self.commits += 1

    def wait(self) -> None:
        assert self.go.wait(5)


def test_what_is_asked_during_a_commit_goes_into_the_next_one_together() -> None:
    store = Slow()
    numbers: list[int] = []

    async def story() -> None:
        desk = Desk(store)
        first = asyncio.create_task(desk.do(store.wait))
        await asyncio.sleep(0.005)  # the commit is under way
        others = [asyncio.create_task(desk.do(partial(numbers.append, number))) for number in range(20)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in (first, *others))
        store.go.set()
        await asyncio.gather(first, *others)

    run(story())
    assert numbers == list(range(20))
    assert store.commits == 2
    store.close()


def test_the_result_of_a_job_is_returned(store: ReplyStore) -> None:
    async def story() -> None:
        desk = Desk(store)
        assert await asyncio.gather(*(desk.do(partial(str, number)) for number in range(9))) == list("012345678")

    run(story())


def test_what_was_done_is_committed_when_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with closing(ReplyStore(path)) as store, closing(ReplyStore(path)) as other:

        async def story() -> None:
            await pay(Desk(store), "key", 0.5, None)
            assert other.get("key") == paid(0.5)

        run(story())


def test_the_error_of_a_job_reaches_its_waiter_and_the_desk_goes_on(store: ReplyStore) -> None:
    async def story() -> None:
        desk = Desk(store)
        with pytest.raises(UnicodeEncodeError):
            await desk.do(partial(store.put, "bad", Reply("\ud83d", 1, 1, 1.0), model="model", purpose=RUN))
        await pay(desk, "good", 0.5, None)
        await desk.drain()

    run(story())
    assert store.get("bad") is None
    assert store.spent_usd() == 0.5


def test_a_job_that_fails_hears_of_it_and_the_others_of_its_commit_are_done(store: ReplyStore) -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("disk full")

    async def story() -> None:
        desk = Desk(store)
        both = asyncio.gather(pay(desk, "key", 0.5, None), desk.do(fail), return_exceptions=True)
        good, bad = await both
        assert not isinstance(good, BaseException)
        assert isinstance(bad, sqlite3.OperationalError)

    run(story())
    assert store.get("key") is not None, "a paid reply"


def test_draining_waits_for_all_that_was_asked(store: ReplyStore) -> None:
    async def story() -> None:
        desk = Desk(store)
        await desk.drain()
        for number in range(30):
            desk.post(partial(settle, store, str(number), paid(0.5), model="model", purpose=RUN, hold=None))
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        await desk.drain()
        assert store.count("run") == 30

    run(story())


def test_what_was_asked_is_done_though_nobody_waits_any_more(store: ReplyStore) -> None:
    async def story() -> None:
        desk = Desk(store)
        asking = asyncio.create_task(pay(desk, "key", 0.5, None))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await desk.drain()

    run(story())
    assert store.get("key") == paid(0.5)
