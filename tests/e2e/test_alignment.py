"""The loop on the real model: killed, resumed, tracked, registered."""

import json
import subprocess

import pytest
from mlflow import MlflowClient

from tests.e2e.conftest import PAIRS, Killed, Workspace, parents

Done = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.e2e

CHAMPION_GATE = "precision_over_champion=0,similarity_over_champion=0,win_rate_over_champion=50,by=mean"
FIGURES = ("mean", "coverage_50", "coverage_70")


def test_a_killed_run_goes_on_and_asks_for_no_reply_twice(
    workspace: Workspace, killed: Killed, finished: Done
) -> None:
    assert finished.returncode == 0, finished.stderr
    assert "going on with MLflow run" in finished.stderr
    after = workspace.stage_files("judge")
    assert {name: after[name] for name in killed.judged} == killed.judged, "a finished judging ran again"
    assert set(killed.replies) <= set(workspace.replies()), "a stored reply was asked for again"
    # Three baselines and two rounds: 4 prompts, 2 answers, 2 judgings. The service LLM's own answers; 4 pairs in a
    # call. Equal questions cost once.
    assert len(workspace.replies()) <= 5 * 4 * 2 * 2 + 4 * 2 + 1


def test_the_table_shows_base_and_every_round(finished: Done) -> None:
    lines = finished.stdout.splitlines()
    names = ["base", "few_shot", "service_llm", "round 0", "round 1"]
    assert [line.split("  ")[0] for line in lines if line.startswith(tuple(names))] == names
    assert "stopped: rounds" in finished.stdout


def test_the_output_has_no_tracebacks_and_no_warnings(finished: Done) -> None:
    for word in ("Traceback", "Warning", "WARNING", "Error"):
        assert word not in finished.stderr


def test_a_finished_alignment_is_shown_again_and_not_run_again(workspace: Workspace, finished: Done) -> None:
    before = workspace.stage_files("finetune")
    again = workspace.llamaduo("run")
    assert again.returncode == 0
    assert again.stdout == finished.stdout
    assert workspace.stage_files("finetune") == before


def test_strict_says_by_its_exit_code_that_the_gate_was_not_passed(workspace: Workspace, finished: Done) -> None:
    assert workspace.llamaduo("run", "--strict").returncode == 3


def test_one_parent_run_holds_every_metric_by_round(client: MlflowClient, finished: Done) -> None:
    parent = parents(client)[0]
    names = [
        *(f"judge/{score}_{figure}" for score in ("precision", "similarity") for figure in FIGURES),
        *("judge/unjudged", "train/loss", "train/eval_loss", "train/tokens_per_second", "data/train_rows"),
        *("data/synthetic_kept", "data/synthetic_rejected", "cost/service_llm_usd", "cost/training_usd"),
        "cost/breakeven_months",
    ]
    for name in names:
        history = client.get_metric_history(parent.info.run_id, name)
        assert [point.step for point in history] == [0, 1], name
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["llamaduo.outcome"] == "rounds"
    assert parent.data.tags["llamaduo.task"] == "closed_qa"
    assert "stand-in" in parent.data.tags["mlflow.note.content"]
    assert len(parent.inputs.dataset_inputs) == 3
    assert parent.data.metrics["baseline/service_llm/perf_matching/precision_mean"] == 100
    for name in ("base", "few_shot"):
        assert 0 <= parent.data.metrics[f"baseline/{name}/precision_mean"] <= 100
    assert 0 <= parent.data.metrics["reference/token_f1"] <= 100


def test_a_round_says_by_which_prompts_it_was_asked_and_how_varied_its_pairs_are(
    client: MlflowClient, finished: Done
) -> None:
    parent = parents(client)[0]
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    for child in children:
        for role in ("judge", "synthesize"):
            assert child.data.tags[f"llamaduo.prompt.{role}"] == f"prompts:/llamaduo-closed_qa-{role}/1"
    grown = next(child.data.metrics for child in children if child.data.tags["llamaduo.round"] == "1")
    assert 0 < grown["synthesis/distinct_2"] <= 1
    assert grown["synthesis/prompt_length_ratio"] > 0
    files = {file.path for file in client.list_artifacts(parent.info.run_id, "coverage")}
    assert files == {"coverage/report.json", "coverage/rejected.json"}
    assert parent.data.metrics["data/coverage_kept"] == PAIRS


def test_the_second_round_trains_on_more_pairs(client: MlflowClient, finished: Done) -> None:
    parent = parents(client)[0].info.run_id
    first, second = (point.value for point in client.get_metric_history(parent, "data/train_rows"))
    kept = client.get_metric_history(parent, "data/synthetic_kept")[1].value
    assert kept > 0
    assert second == first + kept


def test_every_round_has_a_nested_run_with_its_tables(client: MlflowClient, finished: Done) -> None:
    parent = parents(client)[0]
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(child.data.tags["llamaduo.round"] for child in children) == ["0", "1"]
    for child in children:
        files = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert {"responses.json", "verdicts.json", "rejected.json", "scorecard.json"} <= files


def test_under_mlflow_run_a_round_is_a_nested_run_too(client: MlflowClient, passed: Done) -> None:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (own,) = client.search_runs(experiments, "tags.`mlflow.project.entryPoint` = 'main'")
    assert own.data.tags["llamaduo.outcome"] == "passed"
    assert "llamaduo.round" not in own.data.tags
    children = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{own.info.run_id}'")
    assert [child.data.tags["llamaduo.round"] for child in children] == ["0"]


def test_versions_carry_their_evidence_and_no_pickle(
    client: MlflowClient, workspace: Workspace, finished: Done
) -> None:
    versions = client.search_model_versions("name = 'llamaduo-closed_qa'")
    assert len(versions) >= 2
    assert all(version.tags["llamaduo.decision"] for version in versions)
    evidence = [json.loads(file.read_text()) for file in (workspace.folder / "mlruns").rglob("evidence.json")]
    assert len(evidence) >= 2
    assert {e["decision"] for e in evidence} >= {"not passed"}
    assert all(e["offline_stand_ins"] for e in evidence)
    suffixes = {file.suffix for file in (workspace.folder / "mlruns").rglob("*") if file.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".pkl", ".pickle", ".bin", ".pt", ".pth"}


def test_a_version_that_passes_becomes_champion_without_training_anew(
    client: MlflowClient, workspace: Workspace, passed: Done
) -> None:
    assert passed.returncode == 0, passed.stderr
    assert "stopped: passed" in passed.stdout
    assert len(workspace.stage_files("finetune")) == 2
    (parent,) = parents(client, "Default")
    assert parent.data.tags["llamaduo.outcome"] == "passed"
    assert parent.data.metrics["judge/judged_share"] == 100
    model = client.get_registered_model("llamaduo-closed_qa")
    assert {"challenger", "champion"} <= set(model.aliases)
    assert model.aliases["champion"] == model.aliases["challenger"]


def test_every_answer_of_a_round_is_a_trace_that_a_person_can_correct(client: MlflowClient, finished: Done) -> None:
    parent = parents(client)[0]
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    for run_id in [child.info.run_id for child in children]:
        traces = client.search_traces(
            locations=[parent.info.experiment_id],
            run_id=run_id,
            filter_string="tag.`llamaduo.judged` = 'true'",
            include_spans=False,
        )
        assert len(traces) == 4 * 2
        for trace in traces:
            scores = {a.name: a for a in trace.info.assessments}
            assert {"similarity", "precision", "expected_response"} <= set(scores)
            assert 0 <= scores["precision"].feedback.value <= 100
            assert scores["precision"].source.source_id == "offline/judge"


def test_the_champion_is_a_baseline_that_costs_no_inference_and_no_training(
    client: MlflowClient, workspace: Workspace, passed: Done
) -> None:
    before = {stage: workspace.stage_files(stage) for stage in ("finetune", "infer")}
    challenged = workspace.llamaduo("run", "--gate", CHAMPION_GATE)

    assert challenged.returncode == 0, challenged.stderr
    assert {stage: workspace.stage_files(stage) for stage in before} == before
    assert [line for line in challenged.stdout.splitlines() if line.startswith("champion")]
    run = max(parents(client), key=lambda run: run.info.start_time)
    metrics = run.data.metrics
    # Round 0 is the champion: the same adapter, the same answers.
    assert metrics["baseline/champion/precision_mean"] == metrics["judge/precision_mean"]
    assert metrics["pairwise/champion/win_rate"] == 50
    assert run.data.tags["llamaduo.outcome"] == "passed"


def test_the_champion_loads_as_pyfunc(workspace: Workspace, passed: Done) -> None:
    code = (
        "import mlflow; m = mlflow.pyfunc.load_model('models:/llamaduo-closed_qa@champion'); "
        "print(m.predict(['The mill was built by Anna Berg in 1911.\\n\\nWho built the mill?']))"
    )
    process = workspace.start("python", "-c", code)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (answer,) = eval(out.strip().splitlines()[-1], {"__builtins__": {}})  # noqa: S307 - our own print
    assert isinstance(answer, str)
    assert answer


def test_an_adapters_files_do_not_depend_on_the_process_that_wrote_them(workspace: Workspace, passed: Done) -> None:
    configs = list((workspace.folder / ".llamaduo/closed_qa/stages/finetune").rglob("adapter_config.json"))
    assert len(configs) == 2
    for config in configs:
        modules = json.loads(config.read_text())["target_modules"]
        assert modules == sorted(modules)


def test_nothing_half_written_is_left(workspace: Workspace, passed: Done) -> None:
    left = [f for f in (workspace.folder / ".llamaduo").rglob("*") if f.name.endswith(".part") or ".job" in f.name]
    assert left == []
