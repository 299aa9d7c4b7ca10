"""Rounds as tables: for MLflow, and for the terminal at the end."""

from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

import pandas as pd

from mlflow_llamaduo.core.interval import Estimate
from mlflow_llamaduo.core.ledger import usd
from mlflow_llamaduo.core.records import Comparison, Grown, Judgement, Pair, Response, Verdict
from mlflow_llamaduo.core.rounds import Round, State
from mlflow_llamaduo.core.rules import BASELINES, SCORES, THRESHOLDS
from mlflow_llamaduo.core.scoring import Scorecard, perf_matching

ANSWERS = ("id", "instruction", "reference", "response")
"""Columns of `responses_table` that show an answer to a person."""


def pairs_table(pairs: Iterable[Pair]) -> pd.DataFrame:
    """Columns id, instruction, response, category, source."""
    columns = ["id", "instruction", "response", "category", "source"]
    return pd.DataFrame([[p.id, p.instruction, p.response, p.category, p.source] for p in pairs], columns=columns)


def responses_table(responses: Sequence[Response]) -> pd.DataFrame:
    """Columns id, instruction, reference, response, completion_tokens."""
    columns = ["id", "instruction", "reference", "response", "completion_tokens"]
    rows = [[r.id, r.instruction, r.reference, r.text, r.completion_tokens] for r in responses]
    return pd.DataFrame(rows, columns=columns)


def verdicts_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Columns response_id, judge, repeat, similarity, precision (0 to 100, empty if unjudged), reason."""
    columns = ["response_id", "judge", "repeat", "similarity", "precision", "reason"]
    rows = []
    for j in judgements:
        scores: tuple[Any, Any] = (j.similarity, j.precision) if isinstance(j, Verdict) else (None, None)
        rows.append([j.response_id, j.judge, j.repeat, *scores, j.reason])
    return pd.DataFrame(rows, columns=columns)


def rejected_table(grown: Grown) -> pd.DataFrame:
    """Columns reason, partner, detail, instruction, response."""
    columns = ["reason", "partner", "detail", "instruction", "response"]
    rows = [
        [r.reason, r.partner, r.detail, r.pair.instruction if r.pair else "", r.pair.response if r.pair else ""]
        for r in grown.rejected
    ]
    return pd.DataFrame(rows, columns=columns)


def comparisons_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Columns response_id, opponent, judge, first (did the response stand first?), outcome, reason."""
    columns = ["response_id", "opponent", "judge", "first", "outcome", "reason"]
    rows = [[c.response_id, c.opponent, c.judge, c.first, c.outcome, c.reason] for c in comparisons]
    return pd.DataFrame(rows, columns=columns)


def header(thresholds: Sequence[float] = THRESHOLDS) -> tuple[str, ...]:
    """The columns of a run's table."""
    coverages = [f"{score}>={at:g}" for score in ("prec", "sim") for at in thresholds]
    return ("model", *("precision", "95 %", "match"), *("similarity", "95 %", "match"), *coverages, *LAST)


LAST = ("rows", "seconds", "dollars")


def summary(state: State, thresholds: Sequence[float] = THRESHOLDS) -> str:
    """Baselines and rounds side by side, as plain text, and below each version's decision, rule by rule.

    `match` is Perf. Matching, 100 x model / service LLM.
    """
    service_llm = state.baselines.get("service_llm")
    rows = [header(thresholds)]
    for name, card in sorted(state.baselines.items(), key=lambda known: BASELINES.index(known[0])):
        rows.append((name, *_scores(card, service_llm, thresholds), "", "", ""))
    rows += [_round_row(r, service_llm, thresholds) for r in state.rounds]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    lines += [line for r in state.rounds for line in _decision(r)]
    return "\n".join(line.rstrip() for line in lines)


def _decision(r: Round) -> list[str]:
    said = "passed the gate" if r.decision.passed else "did not pass the gate"
    rules = [f"  {'ok ' if result.passed else 'NO '} {result}" for result in r.decision.results]
    return ["", f"version {r.version.number} (round {r.number}) {said}:", *rules]


def _round_row(r: Round, service_llm: Scorecard | None, thresholds: Sequence[float]) -> tuple[str, ...]:
    return (
        f"round {r.number}",
        *_scores(r.scorecard, service_llm, thresholds),
        str(r.train_rows),
        f"{r.seconds:.0f}",
        f"{usd(r.ledger):.2f}",
    )


def _scores(card: Scorecard, service_llm: Scorecard | None, thresholds: Sequence[float]) -> tuple[str, ...]:
    its = {score: service_llm.table.mean(score) if service_llm else None for score in SCORES}
    means = [_mean(card.table.mean(score), its[score]) for score in SCORES]
    coverages = [f"{card.coverage(score, at).value:.0f} %" for score in SCORES for at in thresholds]
    return (*means[0], *means[1], *coverages)


def _mean(own: Estimate, its: Estimate | None) -> tuple[str, str, str]:
    matching = perf_matching(own.value, its.value) if its else inf
    return f"{own.value:.1f}", f"{own.low:.0f}-{own.high:.0f}", f"{matching:.0f} %" if matching < inf else ""


def rows_of(run_id: str, file: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a table of a run, with these of its columns.

    Raises:
        MlflowException, OSError: it is not to be had.
        KeyError, TypeError, ValueError, IndexError, AttributeError: it is no table, or has no such column.
    """
    import mlflow

    table = mlflow.artifacts.load_dict(f"runs:/{run_id}/{file}")
    places = [table["columns"].index(column) for column in columns]
    return [{column: row[place] for column, place in zip(columns, places, strict=True)} for row in table["data"]]
