import pytest

from mlflow_llamaduo.core.gate import FIGURES, GateRule, decide
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.core.scoring import score as summarise
from tests.unit.builders import card, score, unjudged

PAPERS_GATE = (GateRule("precision_mean", 90), GateRule("similarity_mean", 90))

# Table 1, judged by GPT-4o: precision and similarity, each mean / coverage at 50 / at 70.
TABLE_1 = {
    "closed QA, Gemma 2B": ((67.25, 65, 53), (67.41, 67, 57)),
    "closed QA, Gemma 7B": ((81.85, 88, 83), (79.02, 85, 78)),
    "closed QA, Mistral 7B": ((83.63, 87, 82), (81.36, 85, 83)),
    "closed QA, LLaMA3 8B": ((75.55, 78, 75), (72.62, 77, 72)),
    "classification, Gemma 2B": ((58.47, 58, 42), (52.76, 50, 39)),
    "classification, Gemma 7B": ((70.73, 69, 55), (64.67, 62, 53)),
    "classification, Mistral 7B": ((67.53, 70, 53), (61.65, 67, 47)),
    "classification, LLaMA3 8B": ((81.64, 88, 73), (78.02, 77, 67)),
}


def table_1(model: str) -> Scorecard:
    precision, similarity = TABLE_1[model]
    return Scorecard("gpt-4o", 15, 60, 600, 0, precision=score(*precision), similarity=score(*similarity))


@pytest.mark.parametrize("model", TABLE_1)
def test_no_local_model_of_table_1_passes_the_papers_gate(model: str) -> None:
    decision = decide(table_1(model), PAPERS_GATE, {})

    assert not decision.passed
    assert len(decision.reasons) == 2


def test_a_gate_of_coverage_passes_the_models_of_table_1_that_reach_it() -> None:
    gate = [GateRule("precision_coverage_70", 73), GateRule("similarity_coverage_50", 77)]

    assert {model for model in TABLE_1 if decide(table_1(model), gate, {}).passed} == {
        "closed QA, Gemma 7B",
        "closed QA, Mistral 7B",
        "closed QA, LLaMA3 8B",
        "classification, LLaMA3 8B",
    }


def test_every_rule_is_told_with_its_value_whether_it_passed_or_not() -> None:
    gate = [GateRule("precision_mean", 70), GateRule("similarity_mean", 70), GateRule("judged_share", 95)]
    decision = decide(card(precision=80, similarity=60), gate, {})

    assert [(r.rule.figure, r.value, r.passed) for r in decision.results] == [
        ("precision_mean", 80, True),
        ("similarity_mean", 60, False),
        ("judged_share", 100, True),
    ]
    assert decision.reasons == ("similarity_mean 60.0 < 70",)
    assert str(decision) == "not passed: similarity_mean 60.0 < 70"


def test_a_passed_gate_tells_all_its_rules() -> None:
    decision = decide(
        card(precision=80, similarity=75), [GateRule("precision_mean", 70), GateRule("similarity_mean", 70)], {}
    )

    assert decision.passed
    assert decision.reasons == ("precision_mean 80.0 >= 70", "similarity_mean 75.0 >= 70")


@pytest.mark.parametrize("figure", sorted(set(FIGURES) - {"gain_over_base"}))
def test_a_figure_passes_at_just_the_least_value(figure: str) -> None:
    value = card().figures()[figure]

    assert decide(card(), [GateRule(figure, value)], {}).passed
    assert not decide(card(), [GateRule(figure, value + 0.01)], {}).passed


def test_a_gate_without_rules_passes_nothing() -> None:
    assert not decide(card(100, 100), [], {}).passed


@pytest.mark.parametrize(("base", "passed"), [(70.0, True), (70.5, False), (90.0, False)])
def test_gain_over_base_is_in_points_of_mean_precision(base: float, passed: bool) -> None:
    decision = decide(
        card(precision=80, similarity=0), [GateRule("gain_over_base", 10)], {"base": card(precision=base)}
    )

    assert decision.results[0].value == pytest.approx(80 - base)
    assert decision.passed is passed


def test_a_base_model_without_a_verdict_is_no_zero_to_gain_on() -> None:
    unknown = summarise([unjudged("p/0"), unjudged("q/0")])

    assert not decide(card(precision=80), [GateRule("gain_over_base", 10)], {"base": unknown}).passed


def test_a_baseline_by_another_judge_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gemini.*gpt-4o"):
        decide(card(judge="gpt-4o"), [GateRule("precision_mean", 10)], {"base": card(judge="gemini")})
