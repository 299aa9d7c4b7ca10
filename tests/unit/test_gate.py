import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.config import DEFAULT_GATE, rules_of
from mlflow_llamaduo.core.figures import Against, win_rate
from mlflow_llamaduo.core.gate import Decision, decide, holds
from mlflow_llamaduo.core.interval import of_differences, of_ratio
from mlflow_llamaduo.core.pairwise import Duels
from mlflow_llamaduo.core.rules import FIGURES, SCORES, By, Figure, GateRule
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.core.scoring import score as summarise
from tests.unit.builders import card, scores, unjudged

NOBODY = Against()
UNEVEN = {"p0": [90.0, 80.0], "p1": [70.0, 100.0], "p2": [40.0, 95.0], "p3": [88.0, 99.0], "p4": [75.0, 80.0]}


def beside(**baselines: Scorecard) -> Against:
    return Against(baselines)


def duels(points: dict[str, float], opponent: str = "reference", flips: int = 0) -> Duels:
    return Duels("judge", opponent, len(points), 0, 0, flips, 0, 0.0, 50.0, tuple(points.items()))


def one(card: Scorecard, figure: str, least: float, against: Against = NOBODY, by: By = "mean") -> Decision:
    return decide(card, [GateRule(figure, least, by)], against)


def test_every_rule_is_told_with_its_value_whether_it_passed_or_not() -> None:
    gate = [GateRule("precision_mean", 70), GateRule("similarity_mean", 70), GateRule("judged_share", 95)]
    decision = decide(card(precision=80, similarity=60), gate, NOBODY)

    assert [(r.rule.figure, r.value, r.passed) for r in decision.results] == [
        ("precision_mean", 80, True),
        ("similarity_mean", 60, False),
        ("judged_share", 100, True),
    ]
    assert decision.reasons == ("similarity_mean 60.0 < 70",)
    assert str(decision) == "not passed: similarity_mean 60.0 < 70"


def test_a_passed_gate_tells_all_its_rules() -> None:
    gate = [GateRule("precision_mean", 70), GateRule("similarity_mean", 70)]
    decision = decide(card(precision=80, similarity=75), gate, NOBODY)

    assert decision.passed
    assert decision.reasons == ("precision_mean 80.0 >= 70", "similarity_mean 75.0 >= 70")


def test_a_decision_is_json_with_every_rule_figure_bound_and_verdict() -> None:
    gate = rules_of(DEFAULT_GATE)
    decision = decide(scores(UNEVEN), gate, beside(service_llm=card(90, 90, prompts=5, judge="judge")))
    told = json.loads(json.dumps(asdict(decision), allow_nan=False))

    assert [result["rule"]["figure"] for result in told["results"]] == sorted(rule.figure for rule in gate)
    for result in told["results"]:
        assert set(result) == {"rule", "value", "low", "high", "prompts", "passed", "note"}


@pytest.mark.parametrize(
    "figure", ["precision_mean", "similarity_mean", "precision_coverage_85", "similarity_worst_slice", "judged_share"]
)
@pytest.mark.parametrize("by", ["mean", "lower_bound"])
def test_a_figure_passes_at_just_the_least_value(figure: str, by: By) -> None:
    result = one(scores(UNEVEN), figure, 0, by=by).results[0]
    held = result.low if by == "lower_bound" else result.value

    assert held is not None
    assert one(scores(UNEVEN), figure, held, by=by).passed
    assert not one(scores(UNEVEN), figure, held + 0.01, by=by).passed


def test_a_gate_without_rules_passes_nothing() -> None:
    assert not decide(card(100, 100), [], NOBODY).passed


@pytest.mark.parametrize("figure", ["precision_mean", "precision_coverage_50", "precision_over_base"])
def test_a_lower_bound_asks_for_more_than_the_mean(figure: str) -> None:
    against = beside(base=scores({prompt: [60.0, 20.0] for prompt in UNEVEN}))
    result = one(scores(UNEVEN), figure, 0, against).results[0]
    assert result.low is not None and result.value is not None
    between = (result.low + result.value) / 2

    assert one(scores(UNEVEN), figure, between, against).passed
    assert not one(scores(UNEVEN), figure, between, against, by="lower_bound").passed


@pytest.mark.parametrize(("base", "passed"), [(70.0, True), (70.5, False), (90.0, False)])
def test_over_base_is_in_points_of_the_mean(base: float, passed: bool) -> None:
    decision = one(card(80, 0), "precision_over_base", 10, beside(base=card(base)))

    assert decision.results[0].value == pytest.approx(80 - base)
    assert decision.passed is passed


def test_differences_are_paired_by_prompt() -> None:
    """Both models are uneven over the prompts; that they are so on the same ones makes the difference certain."""
    better = {prompt: [value + 3 + n / 9 for value in own] for n, (prompt, own) in enumerate(UNEVEN.items())}
    result = one(scores(better), "precision_over_champion", 2, beside(champion=scores(UNEVEN)), by="lower_bound")

    assert result.passed


def test_two_models_that_are_the_same_are_not_surely_no_worse_than_each_other() -> None:
    """Differences that are all 0 say nothing of what other prompts would bring."""
    same = one(scores(UNEVEN), "precision_over_base", 0, beside(base=scores(UNEVEN)), by="lower_bound")

    assert not same.passed
    assert one(scores(UNEVEN), "precision_over_base", 0, beside(base=scores(UNEVEN))).passed


def test_a_ratio_that_is_the_same_on_all_of_a_few_prompts_is_not_certain() -> None:
    result = one(
        card(91, 91, 2), "precision_perf_matching", 90, beside(service_llm=card(100, 100, 2)), by="lower_bound"
    )

    assert not result.passed


def test_beside_a_service_llm_that_scores_0_there_is_nothing_to_match() -> None:
    result = one(card(0, 0), "precision_perf_matching", 90, beside(service_llm=card(0, 0)))

    assert not result.passed
    assert "scores 0 itself" in str(result)


def test_perf_matching_is_the_ratio_of_the_means_with_its_bounds() -> None:
    own, its = scores(UNEVEN), scores({prompt: [95.0, 90.0 + n] for n, prompt in enumerate(UNEVEN)})
    result = one(own, "precision_perf_matching", 90, beside(service_llm=its)).results[0]
    expected = of_ratio(np.array([np.mean(row) for row in UNEVEN.values()]), its.table.on("precision", list(UNEVEN)))

    assert (result.value, result.low, result.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_prompts_that_only_one_of_the_two_has_a_verdict_on_are_left_out_and_told() -> None:
    many = scores({f"p{n:02d}": [80.0] for n in range(40)})
    base = scores({**{f"p{n:02d}": [50.0] for n in range(39)}, "other": [0.0]})
    result = one(many, "precision_over_base", 0, beside(base=base)).results[0]

    assert (result.prompts, result.value) == (39, 30)
    assert "2 are judged for one of the two only" in result.note


def test_a_baseline_that_many_prompts_have_no_verdict_on_is_nothing_to_be_held_against() -> None:
    """What is missing may be just what the candidate fails at."""
    result = one(card(80, 80, 24), "precision_perf_matching", 10, beside(service_llm=card(90, 90, 13)))

    assert not result.passed
    assert "only 13 of 24 prompts have a verdict on service_llm too" in str(result)


def test_pairs_that_mostly_have_no_outcome_are_no_win_rate() -> None:
    won = replace(duels({"p0": 100.0}), unjudged=95)

    assert not one(card(), "win_rate_over_reference", 40, Against(duels={"reference": won})).passed


def test_equal_answers_are_one_win_and_not_k() -> None:
    """Four times the same answer to each of 15 prompts, all won: as sure as 15 wins."""
    points = {f"p{n}": 100.0 for n in range(15)}
    k_times = replace(duels(points), wins=60)
    again = scores({prompt: [90.0] for prompt in points})
    own, other = (win_rate(each, again) for each in (duels(points), k_times))

    assert own.low == other.low


def test_a_baseline_without_a_verdict_is_no_zero_to_gain_on() -> None:
    unknown = summarise([unjudged("p/0"), unjudged("q/0")])

    assert not one(card(80), "precision_over_base", 10, beside(base=unknown)).passed
    assert not one(card(80), "precision_perf_matching", 10, beside(service_llm=unknown)).passed


def test_a_candidate_without_a_verdict_passes_no_rule_about_scores() -> None:
    unknown = summarise([unjudged("p/0"), unjudged("q/0")])

    for figure in ("precision_mean", "precision_coverage_50", "precision_worst_slice", "precision_over_base"):
        assert not one(unknown, figure, 0, beside(base=card(50))).passed


def test_without_a_champion_there_is_none_to_be_worse_than() -> None:
    decision = one(card(10), "precision_over_champion", 0)

    assert decision.passed
    assert str(decision) == "passed: precision_over_champion: there is no champion yet"


@pytest.mark.parametrize("figure", ["precision_over_base", "similarity_perf_matching", "win_rate_over_reference"])
def test_any_other_model_that_is_missing_is_an_error(figure: str) -> None:
    with pytest.raises(ValueError, match="the gate asks for"):
        one(card(80), figure, 10)


def test_a_baseline_by_another_judge_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gemini.*gpt-4o"):
        one(card(judge="gpt-4o"), "precision_mean", 10, beside(base=card(judge="gemini")))


def test_the_worst_slice_is_held_against_the_gate_and_named() -> None:
    good = scores({f"a{n}": [90.0] for n in range(6)}, slices=("category=easy",))
    bad = scores({f"b{n}": [40.0 + n] for n in range(5)}, slices=("category=hard",))
    both = replace(good, scored=(*good.scored, *bad.scored))
    result = one(both, "precision_worst_slice", 60).results[0]

    assert (result.value, result.passed) == (42, False)
    assert "category=hard, 5 prompts" in str(result)
    assert result.low is not None and result.low < 42


def test_a_slice_of_four_prompts_is_held_against_nothing() -> None:
    good = scores({f"a{n}": [90.0] for n in range(6)}, slices=("category=easy",))
    few = scores({f"b{n}": [0.0] for n in range(4)}, slices=("category=rare",))

    assert one(replace(good, scored=(*good.scored, *few.scored)), "precision_worst_slice", 90).passed


def test_the_win_rate_is_over_prompts_and_needs_its_duels() -> None:
    against = Against(duels={"reference": duels({"p0": 100.0, "p1": 50.0, "p2": 75.0})})
    result = one(card(), "win_rate_over_reference", 60, against).results[0]

    assert (result.value, result.prompts, result.passed) == (75, 3, True)
    assert result.low == win_rate(against.duels["reference"], card()).low


def test_judged_share_is_the_share_of_the_judgings() -> None:
    mixed = replace(card(), judgings=40, unjudged=3)

    assert one(mixed, "judged_share", 92.5).passed
    assert not one(mixed, "judged_share", 93).passed


def test_the_default_gate_asks_for_a_sure_90_percent_of_the_service_llm_and_for_no_worse_than_the_champion() -> None:
    """40 prompts, both a little uneven: 92 % of the service LLM's mean is not surely 90 %; 99 % is."""
    gate = rules_of(DEFAULT_GATE)

    def passes(candidate: float, champion: float | None = None) -> bool:
        rng = np.random.default_rng(4)
        cards = [
            scores({f"p{n}": [float(v)] for n, v in enumerate((mean + rng.normal(0, 8, 40)).clip(0, 100))})
            for mean in (candidate, 90.0, champion or 0.0)
        ]
        known = {"service_llm": cards[1]} | ({"champion": cards[2]} if champion else {})
        return decide(cards[0], gate, Against(known)).passed

    assert passes(89)
    assert not passes(82.5)
    assert not passes(89, champion=95)
    assert passes(89, champion=80)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("precision_mean", Figure("mean", "precision")),
        ("similarity_coverage_100", Figure("coverage", "similarity", 100)),
        ("precision_perf_matching", Figure("perf_matching", "precision", other="service_llm")),
        ("similarity_over_few_shot", Figure("over", "similarity", other="few_shot")),
        ("precision_worst_slice", Figure("worst_slice", "precision")),
        ("win_rate_over_champion", Figure("win_rate", other="champion")),
        ("judged_share", Figure("judged_share")),
    ],
)
def test_a_figures_name_is_read(name: str, figure: Figure) -> None:
    assert Figure.read(name) == figure


@pytest.mark.parametrize(
    "name",
    [
        *("precision", "precision_coverage_101", "precision_coverage_", "recall_mean", "precision_over_nobody", ""),
        *("win_rate_over_base", "win_rate", "judged_share_mean", *FIGURES[2:4]),
    ],
)
def test_a_name_that_is_no_figure_is_told_with_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match="unknown figure"):
        Figure.read(name)


@given(st.lists(st.floats(0, 100), min_size=3, max_size=8), st.integers(1, 30), st.floats(0, 100))
def test_many_outcomes_at_once_hold_where_each_alone_would_pass(
    values: list[float], shift: int, least: float
) -> None:
    """What adaptive judging relies on."""
    rows = scores({f"p{n}": [value] for n, value in enumerate(values)}, slices=("length=short",))
    others = scores({f"p{n}": [value] for n, value in enumerate(reversed(values))})
    against = beside(base=others, service_llm=others)
    gate = [
        GateRule("precision_mean", least, "lower_bound"),
        GateRule("similarity_coverage_50", least),
        GateRule("precision_over_base", least - 50, "lower_bound"),
        GateRule("similarity_perf_matching", least, "lower_bound"),
        GateRule("precision_worst_slice", least),
    ]
    moved = [np.clip(np.array(values) + move, 0, 100) for move in (0, shift, -shift)]
    endings = replace(rows.table, scores={score: np.array(moved) for score in SCORES})
    alone = [
        decide(scores({f"p{n}": [float(v)] for n, v in enumerate(own)}, slices=("length=short",)), gate, against)
        for own in moved
    ]

    assert list(np.broadcast_to(holds(endings, gate, against), (3,))) == [decision.passed for decision in alone]


def test_a_paired_difference_is_students_t() -> None:
    own, its = scores(UNEVEN), scores({prompt: [70.0] for prompt in UNEVEN})
    result = one(own, "precision_over_base", 0, beside(base=its)).results[0]
    expected = of_differences(np.array([np.mean(rows) - 70 for rows in UNEVEN.values()]))

    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
