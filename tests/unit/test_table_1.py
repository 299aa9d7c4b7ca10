"""Closed QA and classification of the paper's Table 1, and what the project says of them.

Columns: precision and similarity by GPT-4o, Claude and Gemini; each mean, coverage at 50, at 70.
"""

import pytest

from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.gate import decide
from mlflow_llamaduo.core.rules import GateRule
from mlflow_llamaduo.core.scoring import perf_matching
from tests.unit.builders import card

Cell = tuple[float, float, float]

COLUMNS = tuple(
    f"{score} by {judge}" for judge in ("GPT-4o", "Claude", "Gemini") for score in ("precision", "similarity")
)
SERVICE_LLMS = ("GPT-4o", "Claude 3 Sonnet", "Gemini 1.5 Flash")
LOCAL = ("Gemma 2B", "Gemma 7B", "Mistral 7B", "LLaMA3 8B")

TABLE_1: dict[str, dict[str, tuple[Cell, ...]]] = {
    "closed qa": {
        "GPT-4o": (
            (95.45, 100, 100),
            (84.23, 93, 80),
            (97.21, 100, 100),
            (92.56, 100, 97),
            (93.58, 100, 100),
            (75.58, 85, 63),
        ),
        "Claude 3 Sonnet": (
            (94.03, 100, 98),
            (85.28, 100, 82),
            (97.6, 100, 100),
            (93.95, 100, 100),
            (93.66, 100, 100),
            (76.33, 92, 65),
        ),
        "Gemini 1.5 Flash": (
            (94.63, 100, 97),
            (87.43, 95, 87),
            (98.25, 100, 100),
            (97.41, 100, 100),
            (95, 100, 100),
            (85.66, 97, 83),
        ),
        "Gemma 2B": (
            (67.25, 65, 53),
            (67.41, 67, 57),
            (80.22, 85, 78),
            (70.2, 73, 72),
            (70.33, 73, 60),
            (59.68, 62, 30),
        ),
        "Gemma 7B": (
            (81.85, 88, 83),
            (79.02, 85, 78),
            (88.83, 93, 93),
            (83.95, 87, 83),
            (82.51, 93, 80),
            (72.24, 75, 67),
        ),
        "Mistral 7B": (
            (83.63, 87, 82),
            (81.36, 85, 83),
            (88.25, 93, 85),
            (84.77, 88, 83),
            (82.04, 85, 78),
            (73.95, 78, 70),
        ),
        "LLaMA3 8B": (
            (75.55, 78, 75),
            (72.62, 77, 72),
            (86.03, 88, 85),
            (77.64, 80, 80),
            (79.09, 85, 77),
            (68.78, 75, 65),
        ),
    },
    "classification": {
        "GPT-4o": (
            (83.62, 94, 81),
            (74.45, 80, 66),
            (87.5, 92, 92),
            (72.28, 72, 66),
            (82.68, 94, 80),
            (63.06, 67, 44),
        ),
        "Claude 3 Sonnet": (
            (82.32, 92, 78),
            (71.53, 81, 70),
            (92.89, 100, 100),
            (75.07, 81, 73),
            (87.34, 97, 97),
            (67.18, 80, 45),
        ),
        "Gemini 1.5 Flash": (
            (85.43, 94, 91),
            (72.73, 81, 75),
            (89.03, 94, 89),
            (77.96, 81, 81),
            (83.35, 94, 84),
            (64.25, 78, 47),
        ),
        "Gemma 2B": (
            (58.47, 58, 42),
            (52.76, 50, 39),
            (69.98, 73, 62),
            (36.31, 58, 47),
            (62.17, 62, 48),
            (48.54, 50, 39),
        ),
        "Gemma 7B": (
            (70.73, 69, 55),
            (64.67, 62, 53),
            (78.78, 81, 75),
            (67.76, 69, 62),
            (70.73, 75, 61),
            (59.77, 59, 52),
        ),
        "Mistral 7B": (
            (67.53, 70, 53),
            (61.65, 67, 47),
            (76.01, 80, 72),
            (64.43, 70, 52),
            (67.9, 73, 53),
            (54.27, 53, 45),
        ),
        "LLaMA3 8B": (
            (81.64, 88, 73),
            (78.02, 77, 67),
            (89.2, 94, 94),
            (82.18, 88, 75),
            (83.63, 94, 77),
            (72.54, 73, 64),
        ),
    },
}
PERF_MATCHING: dict[str, tuple[Cell, ...]] = {
    "closed qa": (
        (87.62, 88, 83),
        (93.06, 85, 95.4),
        (90.41, 93, 93),
        (87.02, 88, 83),
        (86.85, 93, 80),
        (86.33, 80.41, 84.34),
    ),
    "classification": (
        (95.56, 93.62, 80.22),
        (104.8, 95.06, 89.33),
        (96.03, 94, 94),
        (105.41, 108.64, 92.59),
        (95.75, 96.91, 79.38),
        (107.98, 91.25, 136.17),
    ),
}
# 36.31 of Gemma 2B by Claude cannot be right: 58 % of its responses are at 50 or more. No winner hangs on it.

EVERY_CELL = [(task, column, figure) for task in TABLE_1 for column in range(6) for figure in range(3)]


def best(task: str, models: tuple[str, ...], column: int, figure: int) -> float:
    return max(TABLE_1[task][model][column][figure] for model in models)


@pytest.mark.parametrize(("task", "column", "figure"), EVERY_CELL)
def test_perf_matching_of_every_column_is_the_published_one(task: str, column: int, figure: int) -> None:
    local, service_llm = best(task, LOCAL, column, figure), best(task, SERVICE_LLMS, column, figure)

    assert perf_matching(local, service_llm) == pytest.approx(PERF_MATCHING[task][column][figure], abs=0.02)


WINNERS = {
    ("closed qa", "precision by GPT-4o"): "Mistral 7B",
    ("closed qa", "similarity by GPT-4o"): "Mistral 7B",
    ("closed qa", "precision by Claude"): "Gemma 7B",
    ("closed qa", "similarity by Claude"): "Mistral 7B",
    ("closed qa", "precision by Gemini"): "Gemma 7B",
    ("closed qa", "similarity by Gemini"): "Mistral 7B",
    ("classification", "precision by GPT-4o"): "LLaMA3 8B",
    ("classification", "similarity by GPT-4o"): "LLaMA3 8B",
    ("classification", "precision by Claude"): "LLaMA3 8B",
    ("classification", "similarity by Claude"): "LLaMA3 8B",
    ("classification", "precision by Gemini"): "LLaMA3 8B",
    ("classification", "similarity by Gemini"): "LLaMA3 8B",
}


@pytest.mark.parametrize(("task", "column"), WINNERS)
def test_the_best_local_model_of_every_column_is_the_papers(task: str, column: str) -> None:
    place = COLUMNS.index(column)

    assert max(LOCAL, key=lambda model: TABLE_1[task][model][place][0]) == WINNERS[task, column]


@pytest.mark.parametrize("task", TABLE_1)
@pytest.mark.parametrize("model", LOCAL)
@pytest.mark.parametrize("judge", [0, 1, 2])
def test_no_local_model_passes_90_and_90(task: str, model: str, judge: int) -> None:
    assert not passes_90_and_90(task, model, judge)


def test_service_llms_pass_90_and_90_in_closed_qa_by_claude_alone() -> None:
    passed = {
        (task, model, judge)
        for task in TABLE_1
        for model in SERVICE_LLMS
        for judge in range(3)
        if passes_90_and_90(task, model, judge)
    }

    assert passed == {("closed qa", model, 1) for model in SERVICE_LLMS}


def passes_90_and_90(task: str, model: str, judge: int) -> bool:
    precision, similarity = (TABLE_1[task][model][2 * judge + place][0] for place in (0, 1))
    gate = [GateRule("precision_mean", 90), GateRule("similarity_mean", 90)]
    return decide(card(precision, similarity), gate, Against()).passed
