"""The MLflow side of an alignment: a parent run, a nested run a round, resumed by id.

Under `mlflow run` the parent is the run that MLflow made (MLFLOW_RUN_ID). When an alignment that died goes on, its
first run goes on too, and the new one is tagged with where the work is.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from uuid import uuid4

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.ledger import Ledger, usd
from mlflow_llamaduo.core.records import PairSet, TaskPrompt
from mlflow_llamaduo.core.rounds import Judged, Round, State, StopReason, Where, title
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.coverage.gathered import Gathered
from mlflow_llamaduo.evidence import summary as summary_of
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply, Request
from mlflow_llamaduo.tracking.account import account_of
from mlflow_llamaduo.tracking.description import describe
from mlflow_llamaduo.tracking.judged import log_judged
from mlflow_llamaduo.tracking.metrics import card_metrics, matching_metrics
from mlflow_llamaduo.tracking.once import only, tagged
from mlflow_llamaduo.tracking.round_log import RoundLog
from mlflow_llamaduo.tracking.tables import (
    pairs_table,
    responses_table,
    summary,
    verdicts_table,
)
from mlflow_llamaduo.tracking.traces import trace_call
from mlflow_llamaduo.versions import tell

OWN_RUN = "MLFLOW_RUN_ID"
"""The environment variable by which `mlflow run` tells a program the run that it has made for it."""


class Tracker:
    """Writes one alignment to MLflow. Every method may be called again after a restart."""

    def __init__(
        self,
        project: Project,
        gathered: Gathered,
        journal: Journal,
        prompts: Mapping[str, TaskPrompt],
        ledger: Callable[[], Ledger],
    ) -> None:
        self._project = project
        self.prompts = prompts
        self._gathered = gathered
        self._journal = journal
        self._ledger = ledger
        self._client = MlflowClient()
        self.run_id = ""
        self._round_run_id = ""
        self._experiment_id: str | None = None
        self._mlflows_own = os.environ.get(OWN_RUN)

    @contextmanager
    def alignment(self) -> Iterator[None]:
        """The parent run, active for the length of the block; it ends as FAILED or KILLED with the block."""
        known = self._known_run()
        os.environ.pop(OWN_RUN, None)  # MLflow would take it for every run without an id: a round's too
        begun = {"llamaduo.begun": uuid4().hex}
        name = None if known else f"align {self._project.task}"
        with mlflow.start_run(run_id=known, run_name=name, tags=None if known else begun) as run:
            self.run_id, self._experiment_id = run.info.run_id, run.info.experiment_id
            self._journal.update(run_id=self.run_id)
            if known is None:
                only(self._client, run, begun)
            describe(self._project)
            try:
                yield
            except KeyboardInterrupt:
                mlflow.end_run("KILLED")
                raise

    def ledger(self, where: Where | None = None) -> Ledger:
        """What a round or a baseline, or else the whole alignment, has cost so far."""
        return tuple(entry for entry in self._ledger() if where is None or entry.where == title(where))

    def baseline(self, name: str, called: str, card: Scorecard, judged: Judged, state: State) -> None:
        """A baseline's scores, on the parent run; with the first one the datasets.

        Args:
            name: that of its metrics.
            called: that of its tables and traces; the champion's has its version.
            card: its scorecard.
            judged: its answers, and what was said of them.
            state: what is known before.
        """
        if not state.baselines:
            for side, pairs in (("train", state.train), ("dev", state.dev), ("test", state.test)):
                self.log_input(pairs, side)
            self._coverage()
        service_llm = card if name == "service_llm" else state.baselines.get("service_llm")
        figures = card_metrics(card, self._project) | judged.reference
        metrics = {f"baseline/{name}/{figure}": value for figure, value in figures.items()}
        matching = matching_metrics(card, service_llm, self._project)
        metrics |= {f"baseline/{name}/{figure}": value for figure, value in matching.items()}
        mlflow.log_metrics({**metrics, f"baseline/{name}/usd": usd(self.ledger(name))}, step=0)
        self.log_table(responses_table(judged.responses), f"baseline/{called}_responses.json")
        self.log_table(verdicts_table(judged.judgements), f"baseline/{called}_verdicts.json")
        # Not waited for: what a run that dies has not written, it writes when it goes on. The round waits for all.
        self.log_judged(judged, self.run_id, {"llamaduo.baseline": called}, wait=False)

    @contextmanager
    def round(self, number: int) -> Iterator[RoundLog]:
        """A nested run, active for the length of the block."""
        ids = self._journal.entry().round_run_ids[: number + 1]
        known = ids[number] if number < len(ids) and self._exists(ids[number]) else None
        own = {"mlflow.parentRunId": self.run_id, "llamaduo.round": str(number)}
        known = known or tagged(self._client, self._experiment_id, own)
        with mlflow.start_run(
            run_id=known,
            experiment_id=self._experiment_id,
            run_name=None if known else f"round {number}",
            nested=True,
            parent_run_id=self.run_id,
            tags=None if known else {"llamaduo.round": str(number), "llamaduo.task": self._project.task},
        ) as run:
            self._journal.update(round_run_ids=(*ids[:number], run.info.run_id))
            if known is None:
                only(self._client, run, own)
            self._round_run_id = run.info.run_id
            try:
                yield RoundLog(self, self._project, run)
            finally:
                self._round_run_id = ""

    def trace(self, model: str, request: Request, answer: Reply | Failure, purpose: Purpose) -> None:
        """One call to the service LLM as a trace, on the run of its round, or else of the whole alignment."""
        run_id = self._round_run_id or self.run_id
        trace_call(model, request, answer, purpose, experiment_id=self._experiment_id, run_id=run_id)

    def tell(self, finished: Round) -> None:
        """The version of a round of the report that there will be, and of what the round has cost."""
        tell(finished.version, run_id=self.run_id, experiment_id=str(self._experiment_id), ledger=finished.ledger)

    def account(self, state: State, detail: str = "") -> None:
        """`alignment.json` on the parent run: all that it has come to so far."""
        account = account_of(
            self._project,
            state,
            self._journal.entry(),
            gathered=self._gathered,
            prompts=self.prompts,
            ledger=self.ledger(),
            detail=detail,
        )
        self._client.log_dict(self.run_id, account, "alignment.json")

    def finish(self, state: State, stop: StopReason, detail: str = "") -> None:
        """Outcome, table and account, on the parent run."""
        mlflow.set_tag("llamaduo.outcome", stop)
        mlflow.log_text(summary(state, self._project.judging.thresholds) + "\n", "summary.txt")
        if state.rounds:
            mlflow.log_dict(self.scorecard(state.rounds[-1].scorecard), "scorecard.json")
        self._journal.update(stop=stop)
        self.account(state, detail)
        point_here(self._mlflows_own, self.run_id, stop)

    def log_judged(self, judged: Judged, run_id: str, tags: dict[str, str], *, wait: bool = True) -> None:
        """Each judged response as a trace of a run, with its scores: what a reviewer opens and corrects."""
        log_judged(
            judged.responses,
            judged.judgements,
            experiment_id=self._experiment_id,
            run_id=run_id,
            tags={"llamaduo.task": self._project.task, **tags},
            wait=wait,
        )

    def scorecard(self, card: Scorecard) -> dict[str, object]:
        """A scorecard as a file: figures with their intervals, by slice too, and every response's scores."""
        return {**summary_of(card, self._project.judging.thresholds), "scored": [asdict(row) for row in card.scored]}

    def on_parent(self, metrics: dict[str, float], step: int) -> None:
        """Metrics of a round, on the run of the whole alignment."""
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, name, value, step=step)

    def _known_run(self) -> str | None:
        """The run to go on with: the journal's if it is still there, else MLflow's own, else a new one."""
        for run_id in (self._journal.entry().run_id, self._mlflows_own):
            if run_id is not None and self._exists(run_id):
                return run_id
        if "MLFLOW_EXPERIMENT_ID" not in os.environ and "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            mlflow.set_experiment(self._project.registered_model)
        return None

    def _exists(self, run_id: str) -> bool:
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False  # deleted for good, or the tracking store is another one now
            raise  # a server that cannot be reached knows it still

    def _coverage(self) -> None:
        """What became of the source's rows: places and reasons, never what stood there."""
        report = self._gathered.report
        rejected = [{"where": row.where, "reason": row.reason} for row in self._gathered.rejected]
        mlflow.log_dict(asdict(report), "coverage/report.json")
        mlflow.log_dict({"rejected": rejected}, "coverage/rejected.json")
        counts = {f"redacted_{kind}": count for kind, count in report.redacted.items()}
        counts |= {"coverage_rows": report.rows, "coverage_kept": report.kept}
        mlflow.log_metrics({f"data/{name}": float(count) for name, count in counts.items()}, step=0)

    def log_input(self, pairs: PairSet, name: str) -> None:
        source = self._gathered.report.source
        dataset = mlflow.data.from_pandas(pairs_table(pairs), source=source, name=f"{self._project.task}-{name}")
        mlflow.log_input(dataset, context=name)

    def log_table(self, table: pd.DataFrame, file: str) -> None:
        """A table that MLflow shows; one that is there already (from a life before) is left as it is."""
        run_id = mlflow.active_run().info.run_id
        folder = file.rpartition("/")[0] or None
        if not any(f.path == file for f in self._client.list_artifacts(run_id, folder)):
            mlflow.log_table(table, file)


def point_here(started: str | None, run_id: str | None, stop: StopReason) -> None:
    """Tag the run that `mlflow run` made, if the alignment went on in an earlier one, with where to look."""
    if started and run_id and started != run_id:
        client = MlflowClient()
        client.set_tag(started, "llamaduo.continued_in", run_id)
        client.set_tag(started, "llamaduo.outcome", stop)
