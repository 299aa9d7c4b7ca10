"""Calls to the service LLM as MLflow traces, in a real MLflow on SQLite."""

from functools import partial
from pathlib import Path

import mlflow
import pytest

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, Request, ServiceLLM
from mlflow_llamaduo.tracking.traces import trace_call

JUDGED = '{"instruction": "i", "reference": "r", "response": "r"}'


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEST_API_KEY", "sk-planted-0123456789")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("traces")
    with mlflow.start_run() as run:
        return str(run.info.run_id)


def test_a_call_is_a_trace_of_its_run_round_and_stage(run_id: str) -> None:
    experiment = mlflow.get_experiment_by_name("traces").experiment_id
    with ReplyStore(":memory:") as store:
        llm = ServiceLLM(
            ServiceModel(model="offline/judge", api_key_env="TEST_API_KEY"),
            store=store,
            budget=Budget(1),
            purpose=Purpose("alignment", "round 2: judge"),
            trace=partial(trace_call, experiment_id=experiment, run_id=run_id),
            trace_share=1.0,
        )
        requests = [Request(({"role": "user", "content": text},)) for text in (JUDGED, "no JSON")]
        list(llm.complete_many(requests))
        list(llm.complete_many(requests[:1]))  # stored by now: no call, no trace

    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces(locations=[experiment], return_type="list")
    assert len(traces) == 2
    tags = {"llamaduo.run": "alignment", "llamaduo.round": "round 2", "llamaduo.stage": "judge"}
    for trace in traces:
        assert tags.items() <= trace.info.tags.items()
        assert trace.info.trace_metadata["mlflow.sourceRun"] == run_id
        assert "sk-planted" not in str(trace.to_dict())
    good, bad = sorted(traces, key=lambda trace: "failure" in str(trace.data.spans[0].outputs))
    assert "similarity_assessment" in good.data.spans[0].outputs["text"]
    assert good.info.token_usage["output_tokens"] > 0
    assert bad.info.state == "ERROR"
