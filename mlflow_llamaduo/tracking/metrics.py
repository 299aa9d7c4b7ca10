"""A round in figures, under the names that other programs rely on."""

from collections import Counter

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.cost import ApiPrice, LocalPrice, Workload, breakeven_months
from mlflow_llamaduo.core.records import Adapter, Grown
from mlflow_llamaduo.core.rounds import Round


def round_metrics(finished: Round, adapter: Adapter, project: Project, invested_usd: float) -> dict[str, float]:
    """The names that other programs rely on."""
    figures = finished.scorecard.figures()
    metrics = {
        **{f"judge/{name}": value for name, value in figures.items()},
        "judge/unjudged": float(finished.scorecard.unjudged),
        "train/loss": adapter.train_loss,
        "train/eval_loss": adapter.eval_loss,
        "train/best_epoch": adapter.best_epoch,
        "train/tokens_per_second": adapter.tokens_per_second,
        "data/train_rows": float(finished.train_rows),
        "data/synthetic_kept": float(finished.kept),
        "data/synthetic_rejected": float(finished.rejected),
        "cost/service_llm_usd": finished.service_llm_usd,
        "cost/training_usd": finished.training_usd,
    }
    costs = project.costs
    months = breakeven_months(
        Workload(costs.input_mtok_per_day, costs.output_mtok_per_day),
        ApiPrice(costs.api_input_usd_per_mtok, costs.api_output_usd_per_mtok),
        LocalPrice(
            invested_usd,
            costs.server_usd,
            costs.electricity_usd_per_month,
            costs.servers,
        ),
    )
    if months is not None:
        metrics["cost/breakeven_months"] = months
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
