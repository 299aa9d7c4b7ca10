"""What MLflow is told of one round, on the round's run and on the parent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Run

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.ledger import usd
from mlflow_llamaduo.core.records import Adapter, Grown, PairSet
from mlflow_llamaduo.core.rounds import Judged, Round
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.tracking.metrics import growth_metrics, matching_metrics, round_metrics
from mlflow_llamaduo.tracking.tables import comparisons_table, rejected_table, responses_table, verdicts_table

if TYPE_CHECKING:
    from mlflow_llamaduo.tracking.runs import Tracker


class RoundLog:
    """What is told of one round, once it has all its results."""

    def __init__(self, tracker: "Tracker", project: Project, run: Run) -> None:
        self._tracker = tracker
        self._project = project
        self.run_id = run.info.run_id

    def record(
        self,
        finished: Round,
        baselines: Mapping[str, Scorecard],
        adapter: Adapter,
        train: PairSet,
        grown: Grown,
        judged: Judged,
    ) -> None:
        """Metrics on the round's run and, with the round as step, on the parent; tables on the round's run."""
        invested_usd = usd(self._tracker.ledger())
        metrics = round_metrics(finished, adapter, self._project, invested_usd) | growth_metrics(grown)
        metrics |= matching_metrics(finished.scorecard, baselines.get("service_llm"), self._project)
        mlflow.log_metrics(metrics, step=finished.number)
        self._tracker.on_parent(metrics, finished.number)
        for loss in adapter.losses:
            losses = {"train/epoch_loss": loss.train, "train/epoch_eval_loss": loss.dev}
            mlflow.log_metrics({k: v for k, v in losses.items() if v is not None}, step=round(loss.epoch))
        self._tracker.log_input(train, "train")
        self._tracker.log_table(responses_table(judged.responses), "responses.json")
        self._tracker.log_table(verdicts_table(judged.judgements), "verdicts.json")
        if judged.comparisons:
            self._tracker.log_table(comparisons_table(judged.comparisons), "comparisons.json")
        self._tracker.log_table(rejected_table(grown), "rejected.json")
        self._tracker.log_judged(judged, self.run_id, {"llamaduo.round": str(finished.number)})
        mlflow.log_dict(self._tracker.scorecard(finished.scorecard), "scorecard.json")
        mlflow.log_text(adapter.mask, "mask.md")
        mlflow.set_tags(
            {
                "llamaduo.decision": str(finished.decision),
                "llamaduo.model_version": str(finished.version.number),
                **{f"llamaduo.prompt.{role}": prompt.source for role, prompt in self._tracker.prompts.items()},
            }
        )
