"""The loop's judge as an evaluator of `mlflow.models.evaluate(..., evaluators="llamaduo")`.

    data, targets, predictions or model -> Responses -> judgements -> figures as metrics, rows as a table

A judge costs money, and where no evaluator is named MLflow asks all that are installed. So this one takes part only
where `evaluator_config` names a judge.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

from mlflow_llamaduo.errors import ConfigError, DataError, StageError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.data.evaluation_dataset import EvaluationDataset
    from mlflow.pyfunc import PyFuncModel

    from mlflow_llamaduo.core.records import Judgement, Response
    from mlflow_llamaduo.judging.bench import JudgeFields

TABLE = "llamaduo_judged_rows"
"""The table's name in the result; in the run it is a file of this name, with .json."""
SHOWN = 5
"""Rows that cannot be read which a message names."""


class LlamaDuoEvaluator(ModelEvaluator):
    """Judges answers against references, with the prompts, parsers and figures of the loop."""

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Mapping[str, Any], **_: Any) -> bool:
        """Whether `evaluator_config` names a judge; the type of model is of no importance."""
        return "judge" in evaluator_config

    def evaluate(
        self,
        *,
        dataset: "EvaluationDataset",
        run_id: str,
        evaluator_config: Mapping[str, Any],
        model: "PyFuncModel | None" = None,
        predictions: str | None = None,
        model_id: str | None = None,
        **_: Any,
    ) -> EvaluationResult:
        """Judge every row; log metrics and a table to the run.

        Args:
            dataset: the instructions, with targets (the references) and, without a model, predictions.
            run_id: where to log.
            evaluator_config: the fields of `judging.bench.JudgeFields`, and MLflow's `col_mapping`, of which
                `inputs` names the column with the instruction.
            model: answers the rows, if there are no predictions.
            predictions: the column of the model's output that is the answer, where it has several.
            model_id: the logged model that the metrics are of.

        Raises:
            ConfigError: an unknown key, or a judge that cannot be asked.
            DataError: rows without instruction, answer or reference; the message names the first of them.
            StageError: no row could be judged.
            BudgetError: the next judging would pass `budget_usd`; what was judged is kept for the next time.
        """
        import mlflow
        from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact

        from mlflow_llamaduo.core.scoring import score

        fields, column = _settings(evaluator_config)
        responses = _responses(dataset, column, _answers(dataset, model, predictions))
        judged = _judge(fields, responses)
        figures = score([judgement for own in judged for judgement in own]).figures()
        table = _table(responses, judged)
        mlflow.log_metrics(figures, run_id=run_id, model_id=model_id)
        mlflow.log_table(table, f"{TABLE}.json", run_id=run_id)
        uri = mlflow.get_artifact_uri(f"{TABLE}.json")
        rows = JsonEvaluationArtifact(uri=uri, content=table.to_dict(orient="split", index=False))
        return EvaluationResult(metrics=figures, artifacts={TABLE: rows}, run_id=run_id)


def _settings(evaluator_config: Mapping[str, Any]) -> "tuple[JudgeFields, str | None]":
    """The judge's fields, and the column of the instruction if that is told."""
    from pydantic import ValidationError

    from mlflow_llamaduo.config import nearest
    from mlflow_llamaduo.judging.bench import JudgeFields

    given = dict(evaluator_config)
    mapping = given.pop("col_mapping", None) or {}
    problems = [
        f"evaluator_config: unknown key {key}{nearest(key, JudgeFields.model_fields)}"
        for key in given
        if key not in JudgeFields.model_fields
    ]
    problems += [
        f"evaluator_config: col_mapping: unknown key {key}: it names the column of the inputs; targets and "
        "predictions have arguments of their own"
        for key in mapping
        if key != "inputs"
    ]
    try:
        fields = JudgeFields(**{key: value for key, value in given.items() if key in JudgeFields.model_fields})
    except ValidationError as error:
        problems += [
            ": ".join(["evaluator_config", *map(str, problem["loc"]), problem["msg"].removeprefix("Value error, ")])
            for problem in error.errors()
        ]
    if problems:
        raise ConfigError("\n".join(problems))
    return fields, mapping.get("inputs")


def _answers(dataset: "EvaluationDataset", model: "PyFuncModel | None", predictions: str | None) -> list[Any]:
    import pandas as pd

    if model is None:
        if not dataset.has_predictions:
            raise DataError("no answers to judge: give a model, or predictions= (the column that holds them)")
        return list(dataset.predictions_data)
    given = model.predict(_frame(dataset))
    if not isinstance(given, pd.DataFrame):
        return list(given)
    column = predictions or (given.columns[0] if len(given.columns) == 1 else None)
    if column not in given.columns:
        raise DataError(
            f"the model's output has the columns {', '.join(map(str, given.columns))}: say with predictions= which "
            "of them is the answer"
        )
    return list(given[column])


def _frame(dataset: "EvaluationDataset") -> "pd.DataFrame":
    """The features as a table of its own: a model may change it."""
    import pandas as pd

    return pd.DataFrame(dataset.features_data).copy()


def _responses(dataset: "EvaluationDataset", column: str | None, answers: Sequence[Any]) -> "list[Response]":
    """Rows with the same instruction and reference are several answers to one prompt."""
    from mlflow_llamaduo.judging.given import response_of

    if not dataset.has_targets:
        raise DataError("no references to compare with: give targets= (the column that holds them)")
    inputs = _inputs(dataset, column)
    if len(inputs) != len(answers):
        raise DataError(f"the model gave {len(answers)} answers to {len(inputs)} rows")
    responses: list[Response] = []
    samples: Counter[str] = Counter()
    bad: list[str] = []
    for number, (asked, answered, target) in enumerate(zip(inputs, answers, dataset.labels_data, strict=True)):
        try:
            response = response_of(asked, answered, {"expected_response": target})
        except DataError as error:
            bad.append(f"row {number}: {error}")
            continue
        responses.append(replace(response, sample=samples[response.pair_id]))
        samples[response.pair_id] += 1
    if bad:
        more = f"\nand {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError("\n".join(bad[:SHOWN]) + more)
    return responses


def _inputs(dataset: "EvaluationDataset", column: str | None) -> list[Any]:
    frame = _frame(dataset)
    if column is None:
        rows: Iterable[dict[Any, Any]] = frame.to_dict(orient="records")
        return [{name: value for name, value in row.items() if not _missing(value)} for row in rows]
    if column not in frame.columns:
        raise DataError(
            f"evaluator_config: col_mapping: there is no column {column!r}; there are "
            f"{', '.join(map(str, frame.columns))}"
        )
    return list(frame[column])


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def _judge(fields: "JudgeFields", responses: "Sequence[Response]") -> "list[tuple[Judgement, ...]]":
    from mlflow_llamaduo.core.records import Unjudged
    from mlflow_llamaduo.progress import bar

    bench = fields.bench
    futures = [bench.ask(response) for response in responses]
    judged = []
    try:
        with bar(f"{fields.judge} judges", len(responses), "response") as progress:
            for future in futures:
                judged.append(future.result())
                progress.update(1)
    finally:
        for future in futures:
            future.cancel()  # after an error, or Ctrl-C: nobody waits for the rest
    reasons = [j.reason for own in judged for j in own if isinstance(j, Unjudged)]
    if len(reasons) == sum(map(len, judged)):
        raise StageError(f"{fields.judge} judged none of {len(responses)} responses: {reasons[0]}")
    return judged


def _table(responses: "Sequence[Response]", judged: "Sequence[Sequence[Judgement]]") -> "pd.DataFrame":
    """A row a response: means (empty if unjudged), the judge's reasons, and why a judging gave no scores."""
    import pandas as pd

    from mlflow_llamaduo.tracking.judged import feedback

    rows = []
    for response, own in zip(responses, judged, strict=True):
        similarity, precision = feedback("similarity", own), feedback("precision", own)
        rows.append(
            {
                "instruction": response.instruction,
                "reference": response.reference,
                "response": response.text,
                "similarity": similarity.value,
                "precision": precision.value,
                "similarity_reasons": similarity.rationale,
                "precision_reasons": precision.rationale,
                "unjudged": similarity.error.error_message if similarity.error else None,
            }
        )
    return pd.DataFrame(rows)
