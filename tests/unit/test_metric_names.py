"""The table of metrics and what the code writes to MLflow are the same."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import mlflow_llamaduo
from mlflow_llamaduo.config.sections import Metric as Reference
from mlflow_llamaduo.core.ledger import PAID, WORKED, Entry
from mlflow_llamaduo.core.metric_names import METRICS, PLACES, form, known
from mlflow_llamaduo.core.pairwise import Duels
from mlflow_llamaduo.core.records import Grown, Rejected
from mlflow_llamaduo.core.redact import KINDS
from mlflow_llamaduo.core.rules import BASELINES, OPPONENTS
from mlflow_llamaduo.synthesis.diversity import diversity
from mlflow_llamaduo.tracking.metrics import card_metrics, growth_metrics, matching_metrics, round_metrics
from tests.unit.builders import adapter, card, pair, project, round_

PACKAGE = Path(mlflow_llamaduo.__file__).parent
SOURCE = "\n".join(file.read_text(encoding="utf-8") for file in sorted((PACKAGE / "tracking").glob("*.py")))
NAMES = [name for metric in METRICS for name in metric.names]
REASONS = PLACES["reason"].split("|")


def written() -> dict[str, float]:
    """All that a round can tell: other judges, duels, reference metrics, pairs kept, redacted and rejected."""
    known_names = project(judging={"thresholds": (50, 62.5, 100)}, costs={"tokens_per_second": 400})
    duels = [Duels("judge", name, 1, 0, 1, 0, 0, 0.0, 50.0, (("p00", 50.0), ("p01", 50.0))) for name in OPPONENTS]
    reference = dict.fromkeys(get_args(Reference), 50.0)
    others = (replace(card(), judge="vertex_ai/claude-sonnet-4@20250514"),)
    spent = tuple(Entry("round 0", stage, 0.1, 2.0, 3, 400, 50) for stage in PAID)
    spent += tuple(Entry("round 0", stage, 0.1, 2.0) for stage in WORKED)
    told = replace(round_(), ledger=spent, others=others, duels=tuple(duels), reference=reference)
    new = (pair("Which town lies on the river?", "Arn lies on the river"),)
    figures = diversity(new, new) | {f"redacted_{kind}": 1.0 for kind in KINDS}
    grown = Grown(new, tuple(Rejected(None, reason) for reason in REASONS), figures)
    metrics = round_metrics(told, adapter(), known_names, 0.01) | growth_metrics(grown)
    matching = matching_metrics(card(), card(), known_names)
    of_baselines = {**card_metrics(card(), known_names), **reference, **matching, "usd": 0.0}
    metrics |= {f"baseline/{name}/{figure}": value for name in BASELINES for figure, value in of_baselines.items()}
    return metrics | matching


def templates() -> Iterator[str]:
    """The names of metrics that stand in the code of tracking, `*` for what is filled in."""
    first = "|".join(sorted({name.split("/")[0] for name in NAMES}))
    for node in ast.walk(ast.parse(SOURCE)):
        text = _template(node)
        whole = "*" in text or not text.endswith(("/", "_"))  # else it is a piece of an f-string
        if whole and re.match(rf"(?:{first})/", text) and not text.endswith((".json", ".md", ".txt", ".yaml")):
            yield text


def _template(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_template(part) or "*" for part in parts)
    return ""


def fits(template: str, name: str) -> bool:
    return re.fullmatch(re.escape(template).replace(r"\*", ".+"), name) is not None


WRITTEN = written()
TEMPLATES = sorted(set(templates()))


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_round_tells_is_in_the_table(name: str) -> None:
    assert known(name) is not None


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_name_that_stands_in_the_code_is_in_the_table(template: str) -> None:
    assert [name for name in NAMES if fits(template, name)]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_in_the_table_is_written(name: str) -> None:
    beginning = name.split("/", maxsplit=1)[1].split("<", maxsplit=1)[0]

    assert name in TEMPLATES or [each for each in WRITTEN if form(name).fullmatch(each)] or f'"{beginning}' in SOURCE


def test_places_hold_what_the_code_fills_in() -> None:
    assert sorted(PLACES["reference"].split("|")) == sorted(get_args(Reference))
    code = "".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))
    assert [reason for reason in REASONS if f'"{reason}"' not in code] == []


@pytest.mark.parametrize("name", ["judge/precision", "judge/precision_coverage_101", "data/rejected_", "train/los"])
def test_a_name_that_is_none_is_in_no_row(name: str) -> None:
    assert known(name) is None


def test_no_name_stands_in_two_rows() -> None:
    assert len(NAMES) == len(set(NAMES))
    for name in WRITTEN:
        assert len([metric for metric in METRICS if any(form(each).fullmatch(name) for each in metric.names)]) == 1
