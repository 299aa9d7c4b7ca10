from typing import Any

import pytest

from mlflow_llamaduo.core.ledger import Dollars, Planned
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.plan import (
    FIRST_TOKEN_S,
    TOKENS_A_SECOND,
    VERDICT_TOKENS,
    approve,
    plan,
    total,
)
from mlflow_llamaduo.service_llm.store import Typical
from tests.unit.builders import pairs, project

MODEL = {"model": "openai/gpt-4o", "input_usd_per_mtok": 5, "output_usd_per_mtok": 15, "rpm": 60, "concurrency": 64}
PAID = {"judge": MODEL, "generator": MODEL}


def split(test: int = 2) -> Split:
    return Split(pairs(20), pairs(2, "dev"), pairs(test, "test"))


def base(*asked: Any) -> Planned:
    """The judging of the base model."""
    return next(row for row in plan(*asked) if row.stage == "base: judge")


@pytest.mark.parametrize(("prompts", "calls"), [(25, 1000), (16, 640), (15, 600)])
def test_the_judge_is_called_as_often_as_in_the_paper(prompts: int, calls: int) -> None:
    paper = project(inference={"responses_per_prompt": 4}, judging={"repeats": 10})

    assert {row.calls for row in plan(paper, split(prompts)) if row.stage.startswith("round")} == {calls, 100}


def test_a_baseline_that_the_gate_does_not_need_is_judged_twice() -> None:
    calls = {row.stage: row.calls for row in plan(project(gate={"precision_over_base": 5}), split(15))}

    assert (calls["base: judge"], calls["few_shot: judge"], calls["service_llm: judge"]) == (600, 120, 120)
    assert calls["service_llm: answer"] == 60


def test_pairs_are_asked_in_both_orders_and_other_judges_beside_the_gates() -> None:
    asked = project(gate={"win_rate_over_reference": 50}, limits={"rounds": 1}, service_llm={"other_judges": [MODEL]})
    rows = [row for row in plan(asked, split(15)) if row.stage.startswith("round 0")]

    assert [(row.stage, row.model, row.calls) for row in rows] == [
        ("round 0: compare", "offline/judge", 120),
        ("round 0: judge", "offline/judge", 600),
        ("round 0: judge", "openai/gpt-4o", 120),
    ]


def test_at_the_least_a_round_is_settled_after_two_judgings() -> None:
    def least(adaptive: bool) -> float:
        asked = project(service_llm=PAID, judging={"adaptive": adaptive})
        return next(row.usd.low for row in plan(asked, split()) if row.stage == "round 0: judge")

    assert least(True) == pytest.approx(least(False) / 5)


def test_the_base_model_and_every_round_are_judged_and_every_round_but_the_first_is_grown_for() -> None:
    rows = plan(project(limits={"rounds": 3}), split())

    assert [row.stage for row in rows] == [
        "service_llm: answer",
        "service_llm: judge",
        "base: judge",
        "few_shot: judge",
        "round 0: judge",
        "round 1: synthesize",
        "round 1: judge",
        "round 2: synthesize",
        "round 2: judge",
    ]


@pytest.mark.parametrize(("rows", "per_call", "calls"), [(1000, 10, 100), (10, 3, 4), (1, 10, 1)])
def test_synthesis_calls_are_rounded_up(rows: int, per_call: int, calls: int) -> None:
    asked = project(synthesis={"rows_per_round": rows, "pairs_per_call": per_call}, limits={"rounds": 2})

    assert [row.calls for row in plan(asked, split()) if "synthesize" in row.stage] == [calls]


def test_each_stage_is_asked_of_its_own_model_and_stand_ins_cost_nothing() -> None:
    rows = plan(project(), split())

    assert {row.model for row in rows if "judge" in row.stage} == {"offline/judge"}
    assert {row.model for row in rows if "synthesize" in row.stage} == {"offline/teacher"}
    assert all(row.usd == Dollars(0, 0, 0) for row in rows)


def test_dollars_are_tokens_at_the_configured_price() -> None:
    for row in plan(project(service_llm=PAID, judging={"adaptive": False}), split()):
        assert row.input_tokens > 0
        assert row.output_tokens > 0
        assert row.usd.likely == pytest.approx((5 * row.input_tokens + 15 * row.output_tokens) / 1e6)
        assert row.usd.low < row.usd.likely < row.usd.high


def test_a_batch_costs_half_and_has_no_minutes() -> None:
    one, half = (base(project(service_llm={"judge": {**MODEL, "batch": batch}}), split()) for batch in (False, True))
    assert half.usd.likely == pytest.approx(one.usd.likely / 2)
    assert half.minutes is None


def test_minutes_are_those_of_the_slowest_limit() -> None:
    row = base(project(service_llm=PAID), split(25))
    assert row.minutes == row.calls / 60
    row = base(project(service_llm={"judge": {**MODEL, "tpm": 1000}}), split(25))
    assert row.minutes == pytest.approx((row.input_tokens + row.output_tokens) / 1000)
    row = base(project(service_llm={"judge": {**MODEL, "rpm": 10**6, "concurrency": 1}}), split(25))
    assert row.minutes == pytest.approx(row.calls * (FIRST_TOKEN_S + VERDICT_TOKENS / TOKENS_A_SECOND) / 60)


def test_what_was_measured_counts_instead_of_what_was_assumed() -> None:
    def seen(model: str, stage: str) -> Typical | None:
        return Typical(100, 10.0, 7.0, 2.0) if (model, stage) == ("openai/gpt-4o", "judge") else None

    row = base(project(service_llm={"judge": {**MODEL, "rpm": None}}), split(25), seen)
    assert row.output_tokens == row.calls * 7
    assert row.minutes == pytest.approx(row.calls * 2.0 / 60 / 64)
    few = base(project(service_llm=PAID), split(25), lambda model, stage: Typical(3, 10.0, 7.0, 2.0))
    assert few.output_tokens == few.calls * VERDICT_TOKENS


def test_the_least_total_is_that_of_a_run_that_passes_in_round_0() -> None:
    rows = plan(project(service_llm=PAID, limits={"rounds": 3}), split())
    least, likely, most = (total(rows).low, total(rows).likely, total(rows).high)
    first = [row for row in rows if not row.stage.startswith(("round 1", "round 2"))]
    assert least == pytest.approx(sum(row.usd.low for row in first))
    assert likely == pytest.approx(sum(row.usd.likely for row in rows))
    assert most == pytest.approx(sum(row.usd.high for row in rows))


def test_what_is_dear_needs_a_word() -> None:
    asked = project(limits={"ask_above_usd": 2})
    approve(2.0, asked, yes=False)
    approve(2.01, asked, yes=True)
    with pytest.raises(ConfigError, match=r"2\.01 dollars, more than limits\.ask_above_usd \(2\).*--yes"):
        approve(2.01, asked, yes=False)


def test_longer_pairs_and_more_pairs_a_call_cost_more_tokens() -> None:
    def grown(per_call: int) -> Planned:
        asked = project(synthesis={"rows_per_round": 100, "pairs_per_call": per_call}, limits={"rounds": 2})
        (row,) = (row for row in plan(asked, split()) if "synthesize" in row.stage)
        return row

    assert grown(10).output_tokens == grown(5).output_tokens  # as many pairs in all
    assert grown(10).input_tokens < grown(5).input_tokens  # fewer examples and rules


def test_a_model_of_unknown_price_is_told_before_anything_is_spent() -> None:
    with pytest.raises(ConfigError, match="price of openai/unheard-of"):
        plan(project(service_llm={"judge": "openai/unheard-of"}), split())
