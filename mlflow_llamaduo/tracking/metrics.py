"""A round in figures, under the names that other programs rely on."""

import re
from collections import Counter
from collections.abc import Iterable

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.figures import win_rate
from mlflow_llamaduo.core.ledger import figures
from mlflow_llamaduo.core.pairwise import Duels
from mlflow_llamaduo.core.records import Adapter, Grown
from mlflow_llamaduo.core.rounds import Round
from mlflow_llamaduo.core.rules import SCORES
from mlflow_llamaduo.core.scoring import Scorecard, perf_matching
from mlflow_llamaduo.outlook import outlook_of


def round_metrics(finished: Round, adapter: Adapter, project: Project, invested_usd: float) -> dict[str, float]:
    """The names that other programs rely on."""
    metrics = {
        **{f"judge/{name}": value for name, value in card_metrics(finished.scorecard, project).items()},
        **{
            f"judges/{_plain(card.judge)}/{name}": value
            for card in finished.others
            for name, value in card_metrics(card, project).items()
        },
        **{f"reference/{name}": value for name, value in finished.reference.items()},
        **_duels(finished.duels, finished.scorecard),
        "judge/unjudged": float(finished.scorecard.unjudged),
        "judge/calls_saved": float(finished.calls_saved),
        "train/loss": adapter.train_loss,
        "train/eval_loss": adapter.eval_loss,
        "train/best_epoch": adapter.best_epoch,
        "train/tokens_per_second": adapter.tokens_per_second,
        "data/train_rows": float(finished.train_rows),
        "data/synthetic_kept": float(finished.kept),
        "data/synthetic_rejected": float(finished.rejected),
        "cost/service_llm_usd": finished.service_llm_usd,
        "cost/training_usd": finished.training_usd,
        "cost/inference_usd": finished.inference_usd,
        "cost/total_usd": invested_usd,
        **{f"ledger/{name}": value for name, value in figures(finished.ledger).items()},
    }
    months = outlook_of(project.costs, invested_usd).case.breakeven_months
    if months is not None:
        metrics["cost/breakeven_months"] = months
    return metrics


def card_metrics(card: Scorecard, project: Project) -> dict[str, float]:
    """A scorecard's figures, and the 95 % interval of both means."""
    bounds = {
        f"{score}_mean_{side}": float(getattr(card.table.mean(score), side))
        for score in SCORES
        for side in ("low", "high")
    }
    return card.figures(project.judging.thresholds) | bounds


def matching_metrics(card: Scorecard, service_llm: Scorecard | None, project: Project) -> dict[str, float]:
    """Perf. Matching of every mean and coverage: 100 x local / service LLM (paper, Table 1)."""
    if service_llm is None:
        return {}
    own, its = (one.figures(project.judging.thresholds) for one in (card, service_llm))
    return {
        f"perf_matching/{name}": perf_matching(value, its[name])
        for name, value in own.items()
        if name != "judged_share" and its[name] > 0
    }


def _plain(name: str) -> str:
    """A model's name as MLflow takes it for a metric: Vertex has claude-sonnet-4@20250514."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _duels(duels: Iterable[Duels], card: Scorecard) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for each in duels:
        if not each.points:
            continue
        rate = win_rate(each, card)
        found = {"win_rate": rate.value, "win_rate_low": rate.low, "win_rate_high": rate.high}
        found |= {"flip_rate": each.flip_rate, "first_preference": each.first_preference, "unjudged": each.unjudged}
        metrics |= {f"pairwise/{each.opponent}/{k}": float(v) for k, v in found.items() if v is not None}
    return metrics


def growth_metrics(grown: Grown) -> dict[str, float]:
    """How varied the new pairs are, what was redacted in them, and how many were rejected for which reason."""
    rejected = Counter(rejected.reason for rejected in grown.rejected)
    return {
        **{
            f"data/synthetic_{name}" if name.startswith("redacted_") else f"synthesis/{name}": value
            for name, value in grown.figures.items()
        },
        **{f"data/rejected_{reason}": float(count) for reason, count in rejected.items()},
    }
