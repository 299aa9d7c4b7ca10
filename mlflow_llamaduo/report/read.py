"""An alignment as MLflow has it: account, configuration, answers and scores by model, and what was rejected.

What a run's files say may have been written by anybody: what is not there is a note, and what is of another shape is
an error that names the file. Texts are taken as they are, and are escaped where the page is made.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.champion import fetch_evidence
from mlflow_llamaduo.core.beside import Asked, asked
from mlflow_llamaduo.errors import DataError, StageError
from mlflow_llamaduo.tracking.account import FORMAT
from mlflow_llamaduo.tracking.tables import ANSWERS, rows_of

Row = Mapping[str, Any]
VERDICTS = ("response_id", "judge", "similarity", "precision")
REJECTED = ("reason", "detail", "instruction", "response")
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True, slots=True)
class Score:
    """One answer by one judge: means over its verdicts, 0 to 100."""

    response_id: str
    similarity: float
    precision: float


@dataclass(frozen=True, slots=True)
class Model:
    """A round or a baseline: scores by judge, and the answers to each prompt that the gate's judge has judged."""

    scores: Mapping[str, tuple[Score, ...]]
    answers: Mapping[str, Asked]


@dataclass(frozen=True, slots=True)
class Told:
    """All that the report tells. `shown` is the round that it looks at closely, None where none was finished.

    `models` are the baselines by name and the shown round; `rejected` has the rows of each round that rejected any;
    `evidence` is that of the shown round's version, empty where it is gone; `notes` say what is missing.
    """

    run_id: str
    experiment_id: str
    began_ms: int
    ended_ms: int | None
    account: Row
    config: Row
    metrics: Mapping[str, float]
    shown: Row | None
    models: Mapping[str, Model]
    rejected: Mapping[int, tuple[Row, ...]]
    bad_rows: tuple[Row, ...]
    evidence: Row
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The shown round's in `models`."""
        return f"round {self.shown['number']}" if self.shown else ""


def read(run_id: str) -> Told:
    """Everything about an alignment.

    Args:
        run_id: its run, or that of one of its rounds.

    Raises:
        DataError: MLflow has no such run, or it is no alignment's.
        StageError: MLflow cannot be read.
    """
    run = _run(run_id)
    parent = run.data.tags.get(PARENT)
    if parent:
        run = _run(parent)
    run_id = run.info.run_id
    try:
        account = mlflow.artifacts.load_dict(f"runs:/{run_id}/alignment.json")
    except (MlflowException, OSError) as error:
        raise DataError(
            f"run {run_id} has no alignment.json: it is no alignment of llamaduo, or none of its rounds is finished"
        ) from error
    if account.get("format") != FORMAT:
        raise DataError(f"run {run_id}: alignment.json is of format {account.get('format')}, and {FORMAT} is read")
    with shaped(f"alignment.json of run {run_id}"):
        return _told(run, account)


def _told(run: Run, account: dict[str, Any]) -> Told:
    run_id, notes = run.info.run_id, list[str]()
    shown = _shown(account["rounds"])
    models: dict[str, Model] = {}
    files = {file.path for file in MlflowClient().list_artifacts(run_id, "baseline")}
    for name in account["baselines"]:
        called = _called(name, files)
        models |= _model(name, run_id, f"baseline/{called}_", account["judge"], notes)
    if shown:
        judge = shown["scorecard"]["judge"] or account["judge"]
        models |= _model(f"round {shown['number']}", shown["run_id"], "", judge, notes)
    return Told(
        run_id=run_id,
        experiment_id=run.info.experiment_id,
        began_ms=run.info.start_time,
        ended_ms=run.info.end_time,
        account=account,
        config=_file(run_id, "config.json", notes),
        metrics=run.data.metrics,
        shown=shown,
        models=models,
        rejected={r["number"]: _rejected(r["run_id"], notes) for r in account["rounds"] if r["rejected"]},
        bad_rows=tuple(_file(run_id, "coverage/rejected.json", notes).get("rejected", ())),
        evidence=_evidence(account["registered_model"], shown, notes),
        notes=tuple(notes),
    )


@contextmanager
def shaped(what: str) -> Iterator[None]:
    """A file that is not as we write it is one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{what} is not as llamaduo writes it ({type(error).__name__}: {error})") from error


def _run(run_id: str) -> Run:
    try:
        return MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise DataError(f"MLflow has no run {run_id}: is MLFLOW_TRACKING_URI right?") from error
        raise StageError(f"MLflow cannot be read ({str(error).partition(chr(10))[0][:300]})") from error


def _shown(rounds: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The round that passed, else the one with the highest mean precision."""
    if not rounds:
        return None
    if rounds[-1]["passed"]:
        return rounds[-1]
    return max(rounds, key=lambda r: r["scorecard"]["figures"]["precision_mean"]["value"] or 0.0)


def _called(name: str, files: set[str]) -> str:
    """What a baseline's tables are called: a champion's have its version, and the last one counts."""
    if name != "champion":
        return name
    versions = [f.removeprefix("baseline/champion-").partition("_")[0] for f in files if "/champion-" in f]
    return f"champion-{max(versions, key=int)}" if versions else name


def _model(name: str, run_id: str, prefix: str, judge: str, notes: list[str]) -> dict[str, Model]:
    """By its name; none where its files are gone."""
    try:
        answers = rows_of(run_id, f"{prefix}responses.json", ANSWERS)
        verdicts = rows_of(run_id, f"{prefix}verdicts.json", VERDICTS)
    except (MlflowException, OSError) as error:
        notes.append(f"the answers of {name} are not to be had: {' '.join(str(error).split())[:160]}")
        return {}
    with shaped(f"{prefix}verdicts.json of run {run_id}"):
        scores = _scores(verdicts)
        own = {score.response_id: (score.precision, score.similarity) for score in scores.get(judge, ())}
        texts = [{column: str(row[column]) for column in ANSWERS} for row in answers]
        return {name: Model(scores, asked(texts, own))}


def _scores(verdicts: list[dict[str, Any]]) -> dict[str, tuple[Score, ...]]:
    own: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in verdicts:
        if row["similarity"] is not None and row["precision"] is not None:
            own[row["judge"]][row["response_id"]].append((float(row["similarity"]), float(row["precision"])))
    return {
        judge: tuple(Score(id_, fmean(s for s, _ in both), fmean(p for _, p in both)) for id_, both in by_id.items())
        for judge, by_id in own.items()
    }


def _rejected(run_id: str, notes: list[str]) -> tuple[Row, ...]:
    try:
        return tuple(rows_of(run_id, "rejected.json", REJECTED))
    except (MlflowException, OSError) as error:
        notes.append(f"the rejected pairs of run {run_id} are not to be had: {' '.join(str(error).split())[:160]}")
        return ()


def _file(run_id: str, name: str, notes: list[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = mlflow.artifacts.load_dict(f"runs:/{run_id}/{name}")
    except (MlflowException, OSError):
        notes.append(f"{name} is not to be had")
        return {}
    return found


def _evidence(model: str, shown: Row | None, notes: list[str]) -> Row:
    if shown is None:
        return {}
    try:
        return fetch_evidence(model, shown["version"])
    except (DataError, MlflowException) as error:
        notes.append(f"the evidence of version {shown['version']} is not to be had: {error}")
        return {}
