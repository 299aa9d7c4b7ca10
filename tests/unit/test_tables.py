import pandas as pd

from mlflow_llamaduo.core.records import Comparison, Grown, Rejected
from mlflow_llamaduo.core.rounds import Split, State
from mlflow_llamaduo.tracking.tables import (
    comparisons_table,
    header,
    pairs_table,
    rejected_table,
    responses_table,
    summary,
    verdicts_table,
)
from tests.unit.builders import adapter, card, pair, pairs, response, round_, unjudged, verdict


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def test_pairs_are_rows_with_where_they_are_from() -> None:
    p = pair("q", "a", category="c", source="synthetic/1")

    assert records(pairs_table([p])) == [
        {"id": p.id, "instruction": "q", "response": "a", "category": "c", "source": "synthetic/1"}
    ]


def test_comparisons_are_rows_and_one_without_an_outcome_says_why() -> None:
    won = Comparison("p0/0", "reference", "judge", True, "win", "better")
    (row,) = records(comparisons_table([won]))

    assert row == {
        **{"response_id": "p0/0", "opponent": "reference", "judge": "judge", "first": True},
        **{"outcome": "win", "reason": "better"},
    }
    assert records(comparisons_table([Comparison("p0/0", "reference", "judge", True, None, "no winner")]))[0][
        "outcome"
    ] in (None, "")


def test_responses_are_rows_beside_their_references() -> None:
    assert records(responses_table([response("Bel", sample=1)])) == [
        {"id": "p0/1", "instruction": "Which town?", "reference": "Arn", "response": "Bel", "completion_tokens": 3}
    ]


def test_an_unjudged_row_has_a_reason_and_no_scores() -> None:
    table = verdicts_table([verdict("p0/0", 85.5, similarity=70.0, reason="good"), unjudged("p0/1", repeat=1)])
    judged, not_judged = records(table)

    assert judged == {
        "response_id": "p0/0", "judge": "judge", "repeat": 0, "similarity": 70.0, "precision": 85.5, "reason": "good",
    }  # fmt: skip
    assert not_judged["reason"] == "no reply"
    assert table[["similarity", "precision"]].isna().to_numpy().tolist() == [[False, False], [True, True]]


def test_rejected_pairs_are_rows_even_where_there_was_no_pair() -> None:
    grown = Grown((), (Rejected(pair("q", "a"), "leak", "test pair 7", "p7"), Rejected(None, "malformed", "no list")))

    assert records(rejected_table(grown)) == [
        {"reason": "leak", "partner": "p7", "detail": "test pair 7", "instruction": "q", "response": "a"},
        {"reason": "malformed", "partner": "", "detail": "no list", "instruction": "", "response": ""},
    ]


def test_tables_of_nothing_keep_their_columns() -> None:
    for table in (pairs_table([]), responses_table([]), verdicts_table([]), rejected_table(Grown((), ()))):
        assert len(table) == 0
        assert len(table.columns) >= 4


def state() -> State:
    begun = State.begin(Split(pairs(3), pairs(1, "dev"), pairs(1, "test"))).with_baseline("base", card(41.5))
    return begun.after(round_(0, 60.5), pairs(3), adapter()).after(round_(1, 80.0, passed=True), pairs(7), adapter())


def test_the_summary_sets_the_base_model_and_the_rounds_side_by_side() -> None:
    head, rule, base, first, second, *decisions = summary(state()).splitlines()

    assert all(name in head for name in header())
    assert set(rule) == {"-", " "}
    assert base.split()[:2] == ["base", "41.5"]
    assert first.startswith("round 0")
    assert "60.5" in first
    assert second.startswith("round 1")
    assert decisions == [
        *("", "version 1 (round 0) did not pass the gate:", "  NO  precision_mean 60.0 < 70"),
        *("", "version 2 (round 1) passed the gate:", "  ok  precision_mean 80.0 >= 70"),
    ]


def test_the_summarys_columns_are_aligned() -> None:
    lines = summary(state()).splitlines()
    starts = [at for at, mark in enumerate(lines[1]) if mark == "-" and (at == 0 or lines[1][at - 1] == " ")]

    assert len(starts) == len(header())
    for line in lines[: lines.index("")]:
        assert all(line[at - 2 : at].strip() == "" for at in starts[1:] if at <= len(line))


def test_a_round_costs_its_judging_and_its_training() -> None:
    assert "0.75" in summary(state()).splitlines()[3].split()


def test_a_state_without_rounds_has_a_summary_too() -> None:
    assert len(summary(State.begin(Split(pairs(1), pairs(1), pairs(1)))).splitlines()) == 2


def test_match_is_perf_matching_beside_the_service_llm() -> None:
    cells = {line.split("  ")[0]: line.split() for line in summary(state()).splitlines()}
    assert "52" not in cells["base"]

    known = state().with_baseline("service_llm", card(80, 160 / 3))
    cells = {line.split("  ")[0]: line.split() for line in summary(known).splitlines()}
    assert cells["base"][3:5] == ["52", "%"]  # 41.5 of 80
    assert cells["service_llm"][3:5] == ["100", "%"]


def test_the_table_has_coverage_at_the_thresholds_that_are_asked_for() -> None:
    head, _, base, *_ = summary(state(), [60.0]).splitlines()

    assert [word for word in head.split() if ">=" in word] == ["prec>=60", "sim>=60"]
    assert len(base.split("  ")) > 3
