"""The promises of the default gate, on a tenth of what benchmarks/gate.py does."""

from statistics import fmean

from benchmarks.gate import FALSE_PASSES, LINE, PROMPTS, SAME, SAVED, adaptive, passes
from mlflow_llamaduo.config import DEFAULT_GATE, rules_of
from mlflow_llamaduo.core.rules import GateRule

DEFAULT = rules_of(DEFAULT_GATE)
ON_THE_MEAN = [GateRule(rule.figure, rule.at_least, "mean") for rule in DEFAULT]


def test_a_model_5_points_under_the_line_hardly_ever_passes_and_on_the_mean_it_often_does() -> None:
    by_default, on_the_mean = passes(200, PROMPTS, LINE - 5, [DEFAULT, ON_THE_MEAN])

    assert by_default <= FALSE_PASSES
    assert on_the_mean > 2 * FALSE_PASSES


def test_with_100_prompts_a_model_5_points_over_the_line_mostly_passes() -> None:
    assert passes(100, 100, LINE + 5, [DEFAULT])[0] > 60


def test_adaptive_judging_saves_half_of_the_calls_with_the_same_decisions() -> None:
    for mean in (LINE - 5, LINE, LINE + 8):
        saved, same = adaptive(40, mean)
        assert fmean(saved) >= SAVED
        assert same >= SAME
