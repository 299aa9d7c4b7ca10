"""The judge as an evaluator that `mlflow.models.evaluate` finds by its entry point, in a real MLflow on SQLite."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import EvaluationResult
from mlflow.models.evaluation import list_evaluators

from mlflow_llamaduo.errors import ConfigError, DataError, StageError

CONFIG = {"judge": "offline/judge", "task": "closed_qa"}
QUESTIONS = ["Which town?", "Which town?", "Which river?", "Which lake?"]
ANSWERS = ["Arn", "Bern", "the Rhine", "none"]
REFERENCES = ["Arn", "Arn", "the Rhine", "Lake Arn"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all: MLflow takes seconds to make it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def mlflow_there(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment(tmp_path.name)


def rows(**more: Any) -> pd.DataFrame:
    return pd.DataFrame({"question": QUESTIONS, "reference": REFERENCES, **more})


def evaluate(data: Any, model: Any = None, **more: Any) -> EvaluationResult:
    known = {"targets": "reference", "model_type": "text", "evaluators": "llamaduo", "evaluator_config": CONFIG}
    if model is None:
        known["predictions"] = "answer"
    return mlflow.models.evaluate(model, data, **{**known, **more})


def test_mlflow_finds_the_evaluator() -> None:
    assert "llamaduo" in list_evaluators()


def test_answers_that_are_there_are_judged() -> None:
    result = evaluate(rows(answer=ANSWERS))

    assert result.metrics == {
        "precision_mean": 50, "similarity_mean": 50, "precision_coverage_50": 50, "precision_coverage_70": 50,
        "similarity_coverage_50": 50, "similarity_coverage_70": 50, "judged_share": 100,
    }  # fmt: skip
    assert mlflow.get_run(result.run_id).data.metrics == result.metrics


def test_the_rows_are_a_table_of_the_run() -> None:
    table = evaluate(rows(answer=ANSWERS)).tables["llamaduo_judged_rows"]

    assert table["instruction"].tolist() == QUESTIONS
    assert table["response"].tolist() == ANSWERS
    assert table["precision"].tolist() == [100, 0, 100, 0]
    assert "containment 1.00" in table["precision_reasons"][0]


def test_the_result_is_saved_and_loaded_as_mlflow_does(tmp_path: Path) -> None:
    evaluate(rows(answer=ANSWERS)).save(str(tmp_path / "saved"))

    content = EvaluationResult.load(str(tmp_path / "saved")).artifacts["llamaduo_judged_rows"].content
    assert len(content["data"]) == 4


def test_a_models_answers_are_judged() -> None:
    def model(asked: pd.DataFrame) -> list[str]:
        return [dict(zip(QUESTIONS, REFERENCES, strict=True))[question] for question in asked["question"]]

    assert evaluate(rows(), model).metrics["precision_mean"] == 100


def test_of_a_models_columns_the_named_one_is_the_answer() -> None:
    def model(asked: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"thought": ["hm"] * len(asked), "said": REFERENCES})

    assert evaluate(rows(), model, predictions="said").metrics["precision_mean"] == 100
    with pytest.raises(DataError, match="thought, said: say with predictions="):
        evaluate(rows(), model)


def test_the_column_of_the_instruction_may_be_named() -> None:
    data = rows(answer=ANSWERS, title=["a", "b", "c", "d"]).rename(columns={"question": "asked of it"})
    with pytest.raises(DataError, match=r"row 0: no instruction in the inputs' fields \(asked of it, title\)"):
        evaluate(data)

    result = evaluate(data, evaluator_config={**CONFIG, "col_mapping": {"inputs": "asked of it"}})
    assert result.tables["llamaduo_judged_rows"]["instruction"].tolist() == QUESTIONS


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"repeat": 2}, "unknown key repeat; did you mean 'repeats'?"),
        ({"repeats": 0}, "repeats: Input should be greater than or equal to 1"),
        ({"judge": "gpt-4"}, "unknown service LLM 'gpt-4'"),
        ({"api_key_env": "sk-planted-0123456789"}, r"api_key_env: give the \*name\*"),
        ({"col_mapping": {"outputs": "x"}}, "col_mapping: unknown key outputs"),
        ({"col_mapping": {"inputs": "x"}}, "there is no column 'x'; there are question"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_told(config: dict[str, Any], told: str) -> None:
    with pytest.raises((ConfigError, DataError), match=told) as refused:
        evaluate(rows(answer=ANSWERS), evaluator_config={**CONFIG, **config})
    assert "planted" not in str(refused.value)


def test_rows_that_cannot_be_read_are_told_by_number() -> None:
    def model(_: pd.DataFrame) -> list[Any]:
        return ["Arn", None, "the Rhine", {"role": "tool", "content": "x"}]

    with pytest.raises(DataError, match=r"row 1: the outputs are missing(.|\n)*row 3: the outputs end with a turn"):
        evaluate(rows(), model)


def test_without_references_or_answers_nothing_is_judged() -> None:
    with pytest.raises(DataError, match="give targets="):
        evaluate(rows(answer=ANSWERS), targets=None)
    with pytest.raises(DataError, match="give a model, or predictions="):
        evaluate(rows(), predictions=None)


def test_where_no_row_could_be_judged_there_are_no_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow_llamaduo.service_llm.offline import llm

    monkeypatch.setattr(llm, "judge", lambda _: "It is good.")
    with mlflow.start_run() as run, pytest.raises(StageError, match="judged none of 4 responses: no assessment"):
        evaluate(rows(answer=ANSWERS))
    assert mlflow.get_run(run.info.run_id).data.metrics == {}


def test_nobody_pays_for_a_judge_that_was_not_named() -> None:
    with pytest.raises(MlflowException, match="could not be evaluated by any"):
        evaluate(rows(answer=ANSWERS), evaluator_config=None)


def test_the_plugin_loads_nothing_heavy() -> None:
    code = (
        "import mlflow.models, sys; before = set(sys.modules); import mlflow_llamaduo.plugins.evaluator; "
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('mlflow.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == str(
        ["mlflow_llamaduo", "mlflow_llamaduo.errors", "mlflow_llamaduo.plugins", "mlflow_llamaduo.plugins.evaluator"]
    )
