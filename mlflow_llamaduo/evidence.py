"""`evidence.json`: everything that led to a decision, as JSON values, for whoever reviews a version."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.figures import Against, win_rate
from mlflow_llamaduo.core.gate import Decision
from mlflow_llamaduo.core.interval import Estimate
from mlflow_llamaduo.core.parity import Parity
from mlflow_llamaduo.core.records import Adapter, PairSet
from mlflow_llamaduo.core.rules import SCORES
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.service_llm.family import told


def evidence_of(
    project: Project,
    adapter: Adapter,
    scorecard: Scorecard,
    decision: Decision,
    against: Against,
    *,
    parity: Parity,
    train: PairSet,
    run_id: str,
) -> dict[str, Any]:
    """Rules with figures, bounds and verdicts; scores by response; baselines; duels; parity; lineage."""
    thresholds = project.judging.thresholds
    found = {
        "decision": "passed" if decision.passed else "not passed",
        "rules": [
            {**asdict(result.rule), **{k: v for k, v in asdict(result).items() if k != "rule"}, "said": str(result)}
            for result in decision.results
        ],
        "scorecard": {**summary(scorecard, thresholds), "scored": [asdict(row) for row in scorecard.scored]},
        "baselines": {name: summary(card, thresholds) for name, card in against.baselines.items()},
        "duels": {
            name: {**asdict(duels), **_bounds(win_rate(duels, scorecard))} for name, duels in against.duels.items()
        },
        "judge": project.service_llm.judge.model,
        "generator": project.service_llm.generator.model,
        "judge_family": told(project.service_llm),
        "offline_stand_ins": project.offline,
        "adapter": {**asdict(adapter), "path": None, "mask": None, "probed": None},
        "parity": {**asdict(parity), "passed": not parity.differences},
        "train": {"rows": len(train), "digest": train.digest},
        "fingerprint": project.fingerprint,
        "run_id": run_id,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    evidence: dict[str, Any] = finite(found)
    json.dumps(evidence, allow_nan=False)  # a value that is no JSON must fail here, not in somebody's audit
    return evidence


def summary(card: Scorecard, thresholds: tuple[float, ...]) -> dict[str, Any]:
    """A scorecard's counts, and its figures with their 95 % intervals."""
    figures = {f"{score}_mean": _bounds(card.table.mean(score)) for score in SCORES}
    figures |= {
        f"{score}_coverage_{at:g}": _bounds(card.coverage(score, at)) for score in SCORES for at in thresholds
    }
    slices = {
        name: {"prompts": len(part.prompts), **{score: _bounds(part.mean(score)) for score in SCORES}}
        for name, part in card.slices.items()
    }
    return {
        "judge": card.judge,
        "prompts": card.prompts,
        "responses": card.responses,
        "judgings": card.judgings,
        "unjudged": card.unjudged,
        "judged_share": card.judged_share,
        "figures": figures,
        "slices": slices,
    }


def finite(value: Any) -> Any:
    """JSON values with null for every number that is none: the loss of a training that diverged, an open bound."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _bounds(estimate: Estimate) -> dict[str, float | None]:
    """What is from no prompt is null, not 0."""
    names = ("value", "low", "high", "spread")
    found = {name: float(getattr(estimate, name)) if estimate.prompts else None for name in names}
    return {**found, "prompts": estimate.prompts}
