"""The report out of a real MLflow: made at the end, made again by its run or a round's, linked from the version."""

import json
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.report.make import report
from mlflow_llamaduo.versions import versions
from tests.integration.tracked import recorded

FIGURES = {f"figures/{name}.{kind}" for name in ("scores", "densities", "funnel", "cost") for kind in ("html", "png")}


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("report")
    return recorded(Journal(tmp_path / "work", "one")).run_id


def child(run_id: str) -> str:
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    (found,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return str(found.info.run_id)


def test_a_report_and_its_figures_are_artifacts_of_the_alignment(run_id: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert report(run_id, out)[0] == run_id

    files = {file.path for file in MlflowClient().list_artifacts(run_id, "figures")}
    assert files == FIGURES
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/report.html")
    assert text == out.read_text()
    assert "Not passed: the round limit was reached" in text
    assert "round 0: 60.0" in text
    assert "1 rejected: leak" in text
    assert "Which &lt;b&gt;town&lt;/b&gt;?" in text
    assert "the evidence of version 1 is not to be had" in text, "what is missing is told"


def test_a_round_s_run_leads_to_its_alignment_and_the_page_is_made_again(run_id: str) -> None:
    result = CliRunner().invoke(cli, ["report", "--run", child(run_id)], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    assert f"report.html of run {run_id}" in result.stderr


def test_a_version_leads_to_the_report_and_says_what_its_round_has_cost(run_id: str) -> None:
    version = MlflowClient().get_model_version("llamaduo-test", "1")

    assert version.tags["llamaduo.report"] == f"runs:/{run_id}/report.html"
    assert json.loads(version.tags["llamaduo.ledger"])["judge_usd"] == 0.5
    experiment = MlflowClient().get_run(run_id).info.experiment_id
    assert f"(#/experiments/{experiment}/runs/{run_id}/artifacts/report.html)" in version.description
    assert versions("llamaduo-test")[0].report == f"runs:/{run_id}/report.html"


def test_a_description_by_a_person_stays(run_id: str, tmp_path: Path) -> None:
    MlflowClient().update_model_version("llamaduo-test", "1", "Mine.")
    recorded(Journal(tmp_path / "again", "two"))

    assert MlflowClient().get_model_version("llamaduo-test", "1").description == "Mine."


def test_ledger_and_totals_are_metrics_of_the_round_and_of_the_alignment(run_id: str) -> None:
    for run in (run_id, child(run_id)):
        metrics = MlflowClient().get_run(run).data.metrics
        expected = {"ledger/judge_usd": 0.5, "ledger/judge_input_tokens": 9000, "ledger/train_seconds": 60}
        expected |= {"cost/service_llm_usd": 0.5, "cost/training_usd": 0.25, "cost/inference_usd": 0.0}
        assert {name: metrics[name] for name in expected} == expected
        assert metrics["cost/total_usd"] == 0.25, "what the store has, other rounds and baselines included"


def test_a_run_that_is_no_alignment_is_one_line(run_id: str) -> None:
    with mlflow.start_run() as other:
        pass
    with pytest.raises(DataError, match="has no alignment"):
        report(other.info.run_id)
    with pytest.raises(DataError, match="MLflow has no run nowhere"):
        report("nowhere")
    MlflowClient().log_dict(other.info.run_id, {"format": 1, "rounds": 7}, "alignment.json")
    with pytest.raises(DataError, match=r"alignment.json of run .* is not as llamaduo writes it"):
        report(other.info.run_id)
    MlflowClient().log_dict(other.info.run_id, {"format": 99}, "alignment.json")
    with pytest.raises(DataError, match="of format 99, and 1 is read"):
        report(other.info.run_id)


def test_answers_that_are_gone_are_told_and_the_rest_is_there(run_id: str) -> None:
    folder = MlflowClient().get_run(run_id).info.artifact_uri
    Path(str(folder).removeprefix("file://"), "baseline/base_verdicts.json").unlink()

    report(run_id)
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/report.html")
    assert "the answers of base are not to be had" in text
    assert "service LLM" in text
