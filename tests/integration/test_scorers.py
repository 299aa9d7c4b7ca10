"""The judge as scorers of `mlflow.genai.evaluate`, in a real MLflow on SQLite."""

import json
import threading
from pathlib import Path
from typing import Any

import litellm
import mlflow
import pytest
from mlflow.entities import AssessmentSource, Feedback

from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.scorers import Precision, Similarity
from mlflow_llamaduo.service_llm.call import ask

ROWS = [
    {
        "inputs": {"question": f"Which town has number {number}?"},
        "outputs": f"Arn {number}",
        "expectations": {"expected_response": f"Arn {number}" if number % 2 else "another town"},
    }
    for number in range(20)
]


class Calls:
    """How often the model was called; the call itself is as ever."""

    def __init__(self) -> None:
        self._call = litellm.acompletion
        self._lock = threading.Lock()
        self.number = 0

    async def __call__(self, **asked: Any) -> Any:
        with self._lock:
            self.number += 1
        return await self._call(**asked)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all: MLflow takes seconds to make it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def calls(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_GENAI_EVAL_MAX_WORKERS", "10")  # more than 15 and MLflow's pool of SQLite is empty
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment(tmp_path.name)
    assert callable(ask)  # the client is imported, and litellm knows its stand-ins
    calls = Calls()
    monkeypatch.setattr(litellm, "acompletion", calls)
    return calls


def scorers(**fields: Any) -> list[Any]:
    return [Similarity(task="closed_qa", **fields), Precision(task="closed_qa", **fields)]


def test_both_scorers_of_twenty_rows_ask_once_for_every_row_and_repeat(calls: Calls) -> None:
    result = mlflow.genai.evaluate(data=ROWS, scorers=scorers(repeats=3))

    assert calls.number == 20 * 3
    assert result.metrics == {"similarity/mean": 50, "precision/mean": 50}


def test_evaluating_again_asks_nothing(calls: Calls) -> None:
    for _ in range(2):
        mlflow.genai.evaluate(data=ROWS[:2], scorers=scorers())

    assert calls.number == 2


def test_a_row_is_a_trace_with_the_judges_feedback(calls: Calls) -> None:
    result = mlflow.genai.evaluate(data=ROWS[1:2], scorers=scorers(repeats=2))

    (trace,) = mlflow.search_traces(run_id=result.run_id, return_type="list")
    for name, why in (("similarity", "ROUGE-L 1.00"), ("precision", "containment 1.00")):
        (given,) = trace.search_assessments(name, type="feedback")
        assert given.value == 100
        assert [why in line for line in given.rationale.splitlines()] == [True, True]
        assert (given.source.source_type, given.source.source_id) == ("LLM_JUDGE", "offline/judge")
        assert (given.metadata["repeats"], json.loads(given.metadata["scores"])) == ("2", [100, 100])
    (expected,) = trace.search_assessments("expected_response", type="expectation")
    assert expected.value == "Arn 1"


def test_traces_are_judged_as_they_are_with_the_references_that_were_logged_on_them(calls: Calls) -> None:
    with mlflow.start_span("answer", span_type="CHAT_MODEL") as span:
        span.set_inputs({"messages": [{"role": "user", "content": "Which town?"}]})
        span.set_outputs({"choices": [{"message": {"role": "assistant", "content": "Arn"}}]})
    mlflow.flush_trace_async_logging()
    person = AssessmentSource("HUMAN", "ann")
    mlflow.log_expectation(trace_id=span.trace_id, name="expected_response", value="Arn", source=person)
    traces = mlflow.search_traces(return_type="list")

    result = mlflow.genai.evaluate(data=traces, scorers=scorers())
    assert result.metrics == {"similarity/mean": 100, "precision/mean": 100}
    assert Precision(task="closed_qa")(trace=traces[0]).value == 100
    assert calls.number == 1


def test_what_a_function_answers_is_judged(calls: Calls) -> None:
    def predict(question: str) -> dict[str, Any]:
        return {"choices": [{"message": {"role": "assistant", "content": "another town"}}]}

    data = [{"inputs": row["inputs"], "expectations": row["expectations"]} for row in ROWS[:4]]
    result = mlflow.genai.evaluate(data=data, predict_fn=predict, scorers=scorers())

    assert result.metrics["precision/mean"] == 50


def test_a_response_that_cannot_be_judged_has_an_error_and_no_score(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chat(**asked: Any) -> Any:
        return litellm.mock_completion(model="offline/judge", messages=asked["messages"], mock_response="It is good.")

    monkeypatch.setattr(litellm, "acompletion", chat)
    result = mlflow.genai.evaluate(data=ROWS[:1], scorers=scorers())

    (trace,) = mlflow.search_traces(run_id=result.run_id, return_type="list")
    (given,) = trace.search_assessments("precision", type="feedback")
    assert given.value is None
    assert given.error.error_code == "UNJUDGED"
    assert "no assessment in the reply: 'It is good.'" in given.error.error_message
    assert result.metrics == {}


def test_a_row_without_a_reference_is_told_on_its_trace_and_the_others_are_judged(calls: Calls) -> None:
    data = [ROWS[1], {**ROWS[3], "expectations": {"expected_facts": ["a"]}}]
    result = mlflow.genai.evaluate(data=data, scorers=scorers())

    assert result.metrics == {"similarity/mean": 100, "precision/mean": 100}
    errors = [
        given.error.error_message
        for trace in mlflow.search_traces(run_id=result.run_id, return_type="list")
        for given in trace.search_assessments("precision", type="feedback")
        if given.error
    ]
    assert errors == [
        "no reference to compare with in the expectations (expected_facts): give every row "
        'expectations={"expected_response": "..."}'
    ]


def test_a_scorer_may_be_called_by_itself(calls: Calls) -> None:
    given = Similarity(name="closeness")(
        inputs="Which town?", outputs="Arn", expectations={"expected_response": "Arn"}
    )

    assert isinstance(given, Feedback)
    assert (given.name, given.value) == ("closeness", 100)
    with pytest.raises(DataError, match="expected_response"):
        Similarity()(inputs="Which town?", outputs="Arn")
