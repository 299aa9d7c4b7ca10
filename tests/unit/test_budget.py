import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.service_llm.budget import Budget

CALLS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12)  # an estimate, and the share really paid


async def call(budget: Budget, estimate: float, paid: float, turns: int = 1) -> float:
    async with asyncio.timeout(5), budget.reserve(estimate) as reservation:
        for _ in range(turns):
            await asyncio.sleep(0)
        reservation.paid_usd = paid
    return paid


def test_what_was_paid_is_spent_and_not_the_estimate() -> None:
    budget = Budget(1.0)
    asyncio.run(call(budget, 0.9, 0.1))

    assert budget.spent_usd == pytest.approx(0.1)
    asyncio.run(call(budget, 0.9, 0.2))
    assert budget.spent_usd == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("spent", "estimate", "fits"), [(0, 1.0, True), (0, 1.01, False), (0.75, 0.25, True), (1, 0, True)]
)
def test_a_call_may_use_up_the_budget_and_not_pass_it(spent: float, estimate: float, fits: bool) -> None:
    budget = Budget(1.0, spent)

    if fits:
        asyncio.run(call(budget, estimate, estimate))
        assert budget.spent_usd == spent + estimate
    else:
        with pytest.raises(BudgetError):
            asyncio.run(call(budget, estimate, estimate))
        assert budget.spent_usd == spent


def test_the_error_says_what_was_spent_and_what_to_do() -> None:
    with pytest.raises(BudgetError, match=r"0\.9000 of 1 dollars spent.*may cost 0\.5000; .*--budget-usd"):
        asyncio.run(call(Budget(1.0, 0.9), 0.5, 0.5))


def test_what_was_spent_in_an_earlier_life_counts() -> None:
    with pytest.raises(BudgetError):
        asyncio.run(call(Budget(5.0, spent_usd=4.5), 0.6, 0.6))


def test_a_call_waits_for_others_that_may_turn_out_cheaper() -> None:
    async def both() -> None:
        budget = Budget(1.0)
        await asyncio.gather(call(budget, 0.8, 0.1, turns=9), call(budget, 0.8, 0.8))
        assert budget.spent_usd == pytest.approx(0.9)

    asyncio.run(both())


def test_a_call_that_fails_gives_back_what_it_held() -> None:
    budget = Budget(1.0)

    async def fail() -> None:
        async with budget.reserve(1.0):
            raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(fail())
    asyncio.run(call(budget, 1.0, 1.0))
    assert budget.spent_usd == 1.0


def test_a_budget_that_ran_out_says_so_after_any_sums_and_does_not_wait_for_ever() -> None:
    budget = Budget(10.0)

    async def spend() -> None:
        await asyncio.gather(
            call(budget, 0.1, 0.0, turns=1), call(budget, 0.2, 0.0, turns=2)
        )  # 0.1 + 0.2 - 0.1 - 0.2 > 0
        await call(budget, 11.0, 11.0)

    with pytest.raises(BudgetError):
        asyncio.run(spend())


@given(CALLS, st.floats(0, 4))
def test_however_many_calls_run_at_once_the_budget_is_never_passed(
    calls: list[tuple[float, float]], cap: float
) -> None:
    budget = Budget(cap)

    async def all_at_once() -> list[float | BaseException]:
        waiting = (call(budget, estimate, estimate * share, n % 3) for n, (estimate, share) in enumerate(calls))
        return await asyncio.gather(*waiting, return_exceptions=True)

    outcomes = asyncio.run(all_at_once())
    assert all(isinstance(outcome, float | BudgetError) for outcome in outcomes)
    assert budget.spent_usd == pytest.approx(sum(outcome for outcome in outcomes if isinstance(outcome, float)))
    assert budget.spent_usd <= cap + 1e-9
