"""The versions of a registered model as frozen values: tags, aliases, `evidence.json` and run, read from MLflow.

A version that somebody else made, or whose files are gone, is a version still: what is not known of it is empty, and
`note` says why. What was written into a version may have been written by anybody: it is taken apart here once.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.champion import fetch_evidence
from mlflow_llamaduo.core.ledger import Ledger, figures
from mlflow_llamaduo.core.records import Version
from mlflow_llamaduo.core.rules import SCORES
from mlflow_llamaduo.core.scoring import Scorecard, Scored
from mlflow_llamaduo.core.shadowed import Shadowed
from mlflow_llamaduo.core.text import without_login
from mlflow_llamaduo.errors import DataError, StageError

AT_ONCE = 8
"""Versions that are read together: each is a few requests, and a server may be far away."""
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers where there is no such run."""
SAID = "llamaduo.review."
REPORT, LEDGER = "llamaduo.report", "llamaduo.ledger"
"""Where the alignment's report is, and what the version's round has cost by stage, as JSON."""
COUNTS = ("prompts", "responses", "judgings", "unjudged")
COSTS = ("cost/service_llm_usd", "cost/training_usd", "cost/inference_usd")


@dataclass(frozen=True, slots=True)
class Bounds:
    """A figure with its 95 % interval; None where there is no such number."""

    value: float | None
    low: float | None
    high: float | None

    @staticmethod
    def of(value: Any, low: Any, high: Any) -> "Bounds":
        """Of whatever was measured; what is not finite is None."""
        return Bounds(*(float(n) if n is not None and isfinite(n) else None for n in (value, low, high)))


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a version is made of, and how each rule of its gate came out: passed or not, and in words."""

    rules: tuple[tuple[bool, str], ...]
    base_model: str
    adapter: str
    train_rows: int
    train_digest: str
    judge: str
    generator: str
    families: str
    offline: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """`evidence.json`, taken apart: the means of its scorecard as they were recorded, and every response's scores."""

    scores: Mapping[str, Bounds]
    lineage: Lineage
    card: Scorecard

    @staticmethod
    def of(found: Mapping[str, Any]) -> "Evidence":
        """Take it apart.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not as llamaduo writes it.
        """
        figures = found["scorecard"]["figures"]
        means = {score: figures[f"{score}_mean"] for score in SCORES}
        lineage = Lineage(
            rules=tuple((bool(rule["passed"]), str(rule["said"])) for rule in found["rules"]),
            base_model=str(found["adapter"]["base_model"]),
            adapter=str(found["adapter"]["digest"]),
            train_rows=int(found["train"]["rows"]),
            train_digest=str(found["train"]["digest"]),
            judge=str(found["judge"]),
            generator=str(found["generator"]),
            families=str(found["judge_family"]),
            offline=bool(found["offline_stand_ins"]),
        )
        scores = {score: Bounds.of(mean["value"], mean["low"], mean["high"]) for score, mean in means.items()}
        return Evidence(scores, lineage, _card(found["scorecard"]))


@dataclass(frozen=True, slots=True)
class Seen:
    """One version: `made` in UTC, `usd` the dollars of its round, `words` when and what people said, in order.

    `decision` is empty where llamaduo did not make it, `override` where nobody promoted it against its gate.
    """

    number: int
    aliases: tuple[str, ...]
    made: str
    run_id: str
    decision: str
    parity: str
    review: str
    reviewer: str
    reviewed_at: str
    override: str
    words: tuple[tuple[str, str], ...]
    base_model: str
    usd: float | None = None
    judge_prompt: str = ""
    shadow: str = ""
    report: str = ""
    evidence: Evidence | None = field(default=None, repr=False)
    note: str = ""


def tell(version: Version, *, run_id: str, experiment_id: str, ledger: Ledger) -> None:
    """Link a version to the report of its alignment, and say what its round has cost.

    A description that is there is a person's, and stays.

    Raises:
        MlflowException: MLflow cannot be written, or the version is gone.
    """
    client, number = MlflowClient(), str(version.number)
    client.set_model_version_tag(version.name, number, REPORT, f"runs:/{run_id}/report.html")
    client.set_model_version_tag(version.name, number, LEDGER, json.dumps(figures(ledger)))
    if not client.get_model_version(version.name, number).description:
        link = f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/report.html"
        client.update_model_version(version.name, number, f"[The report of its alignment]({link})")


@contextmanager
def at_hand() -> Iterator[None]:
    """A registry that cannot be read or written is one line.

    Raises:
        StageError: MLflow has refused something, or is not to be reached.
    """
    try:
        yield
    except MlflowException as error:
        first = without_login(str(error).partition("\n")[0])[:300]
        raise StageError(f"the MLflow registry cannot be used ({first}): is MLFLOW_TRACKING_URI right?") from error


def versions(name: str) -> tuple[Seen, ...]:
    """All versions of a registered model, the newest first; none where there is no such model.

    Raises:
        MlflowException: MLflow cannot be read.
    """
    client = MlflowClient()
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return ()
        raise
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += page
        token = page.token
        if not token:
            break
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = list(pool.map(partial(_seen, client, aliases), found))
    return tuple(sorted(seen, key=lambda version: -version.number))


def _seen(client: MlflowClient, aliases: Mapping[str, str], version: ModelVersion) -> Seen:
    tags, number = version.tags, int(version.version)
    metrics, of_run = _run(client, version.run_id)
    shadowed = Shadowed.read(tags.get("llamaduo.shadow"))
    costs = [metrics[key] for key in COSTS if key in metrics]
    evidence, note = _evidence(version)
    return Seen(
        number=number,
        aliases=tuple(sorted(alias for alias, of in aliases.items() if int(of) == number)),
        made=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        run_id=version.run_id or "",
        decision=tags.get("llamaduo.decision", ""),
        parity=tags.get("llamaduo.parity", ""),
        review=tags.get("llamaduo.review", ""),
        reviewer=tags.get("llamaduo.reviewer", ""),
        reviewed_at=tags.get("llamaduo.reviewed_at", ""),
        override=tags.get("llamaduo.override", ""),
        words=tuple(sorted((key.removeprefix(SAID), said) for key, said in tags.items() if key.startswith(SAID))),
        base_model=tags.get("llamaduo.base_model", ""),
        usd=sum(costs) if costs else None,
        judge_prompt=of_run.get("llamaduo.prompt.judge", ""),
        shadow=shadowed.told() if shadowed else "",
        report=tags.get(REPORT, ""),
        evidence=evidence,
        note=note,
    )


def _run(client: MlflowClient, run_id: str | None) -> tuple[Mapping[str, float], Mapping[str, str]]:
    """Metrics and tags of a version's run; nothing where the run is gone."""
    try:
        data = client.get_run(run_id).data if run_id else None
    except MlflowException as error:
        if error.error_code not in GONE:
            raise
        data = None
    return (data.metrics, data.tags) if data else ({}, {})


def _evidence(version: ModelVersion) -> tuple[Evidence | None, str]:
    """A version's evidence, or why there is none."""
    if "llamaduo.decision" not in version.tags:
        return None, f"version {version.version} was not made by llamaduo: it has no gate's decision and no evidence"
    try:
        return Evidence.of(fetch_evidence(version.name, int(version.version))), ""
    except DataError as error:
        return None, str(error)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        return None, f"evidence.json of version {version.version} is not as llamaduo writes it ({why})"


def _card(card: Mapping[str, Any]) -> Scorecard:
    """The scorecard that decided."""
    rows = tuple(
        Scored(
            str(row["response_id"]),
            float(row["similarity"]),
            float(row["precision"]),
            int(row["verdicts"]),
            tuple(str(name) for name in row["slices"]),
            bool(row["again"]),
        )
        for row in card["scored"]
    )
    prompts, responses, judgings, unjudged = (int(card[name]) for name in COUNTS)
    return Scorecard(str(card["judge"]), prompts, responses, judgings, unjudged, rows)
