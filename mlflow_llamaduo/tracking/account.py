"""`alignment.json`: all that an alignment has come to, as JSON values: what the report is made of.

    {"format": 1, "task", "outcome", "rounds": [...], "baselines": {...}, "data": {...},
     "ledger": [...], "planned": [...], "costs": {...}, ...}

It is written after every round, so that one that was stopped has an account too; `outcome` is null until it ends.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from mlflow_llamaduo import __version__
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.ledger import Ledger, usd
from mlflow_llamaduo.core.records import TaskPrompt
from mlflow_llamaduo.core.rounds import Round, State
from mlflow_llamaduo.coverage.gathered import Gathered
from mlflow_llamaduo.evidence import finite, summary
from mlflow_llamaduo.journal import Entry
from mlflow_llamaduo.outlook import outlook_of
from mlflow_llamaduo.service_llm.family import told

FORMAT = 1
"""Changes when a reader of the file before would misread it."""


def account_of(
    project: Project,
    state: State,
    entry: Entry,
    *,
    gathered: Gathered,
    prompts: Mapping[str, TaskPrompt],
    ledger: Ledger,
    detail: str,
) -> dict[str, Any]:
    """The file's content.

    Args:
        project: what was asked for.
        state: what has come of it.
        entry: MLflow's runs, the plan, and why it has stopped, if it has.
        gathered: its coverage pairs.
        prompts: by role.
        ledger: what it has cost.
        detail: what the budget had to say.
    """
    thresholds = project.judging.thresholds
    parts = gathered.parts
    sizes = {side: len(getattr(parts, side)) for side in ("train", "dev", "test", "left_out")}
    found: dict[str, Any] = finite(
        {
            "format": FORMAT,
            "llamaduo": __version__,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "task": project.task,
            "profile": project.profile,
            "registered_model": project.registered_model,
            "fingerprint": project.fingerprint,
            "run_id": entry.run_id,
            "outcome": entry.stop,
            "detail": detail,
            "base_model": project.base_model,
            "judge": project.service_llm.judge.model,
            "other_judges": [llm.model for llm in project.service_llm.other_judges],
            "generator": project.service_llm.generator.model,
            "judge_family": told(project.service_llm),
            "offline_stand_ins": project.offline,
            "promotion": project.promotion,
            "thresholds": list(thresholds),
            "prompts": {role: prompt.source for role, prompt in prompts.items()},
            "data": {**asdict(gathered.report), "parts": sizes, "train_digest": parts.train.digest},
            "baselines": {name: summary(card, thresholds) for name, card in state.baselines.items()},
            "rounds": [_round(r, entry, thresholds) for r in state.rounds],
            "ledger": [asdict(row) for row in ledger],
            "planned": [asdict(row) for row in entry.planned],
            "costs": outlook_of(project.costs, usd(ledger)).row,
        }
    )
    return found


def _round(r: Round, entry: Entry, thresholds: tuple[float, ...]) -> dict[str, Any]:
    """A round's run is the one of this alignment: a version that was found again may be of an earlier one."""
    return {
        "number": r.number,
        "run_id": entry.round_run_ids[r.number] if r.number < len(entry.round_run_ids) else r.version.run_id,
        "version": r.version.number,
        "passed": r.decision.passed,
        "rules": [{"passed": result.passed, "said": str(result)} for result in r.decision.results],
        "scorecard": summary(r.scorecard, thresholds),
        "others": [summary(card, thresholds) for card in r.others],
        "duels": [{k: v for k, v in asdict(duels).items() if k != "points"} for duels in r.duels],
        "train_rows": r.train_rows,
        "kept": r.kept,
        "rejected": r.rejected,
        "seconds": r.seconds,
        "calls_saved": r.calls_saved,
        "reference": r.reference,
    }
