"""The loop's judge as scorers of `mlflow.genai.evaluate`: `Similarity` and `Precision`, 0 to 100.

    mlflow.genai.evaluate(data=..., scorers=[Similarity(judge="gpt-6-luna"), Precision(judge="gpt-6-luna")])

Both ask the judge the same, with the prompts and parsers of the loop, and give both the same fields: then a row is
paid for once. Replies are kept in `.llamaduo/replies.sqlite`, so that evaluating again costs nothing.

They are no scorers that MLflow can register: it stores code of decorated functions and of its own scorers only.
"""

from typing import Any, ClassVar

from mlflow.entities import Feedback, Trace
from mlflow.genai.scorers import Scorer

from mlflow_llamaduo.judging.bench import JudgeFields
from mlflow_llamaduo.judging.given import response_of
from mlflow_llamaduo.tracking.judged import feedback

NO_LIMIT_S = 0
"""The client has limits of its own. MLflow's, 300 seconds a call, leaves a row without scores that are paid for."""


class _JudgeScorer(JudgeFields, Scorer):
    quantity: ClassVar[str]
    timeout: int | float | None = NO_LIMIT_S

    def __call__(
        self,
        *,
        inputs: Any = None,
        outputs: Any = None,
        expectations: dict[str, Any] | None = None,
        trace: Trace | None = None,
    ) -> Feedback:
        """Judge one row.

        Args:
            inputs: the instruction; shapes in `judging.given`.
            outputs: the answer to judge.
            expectations: `{"expected_response": ...}`, the reference.
            trace: read for what is not given: inputs and outputs of its root, expectations that were logged on it.

        Returns:
            The mean score with the judge's reasons; an error, and no value, for a response that could not be judged.

        Raises:
            DataError: instruction, answer or reference is missing; the message says how to give it.
            BudgetError: the next judging would pass `budget_usd`.
            ConfigError: the provider refused the key, or does not know the model.
        """
        if trace is not None:
            root = next((span for span in trace.data.spans if span.parent_id is None), None)
            inputs = root.inputs if inputs is None and root else inputs
            outputs = root.outputs if outputs is None and root else outputs
            expectations = expectations or _expectations(trace)
        judgements = self.bench.ask(response_of(inputs, outputs, expectations)).result()
        given = feedback(self.quantity, judgements)
        given.name = self.name
        return given


class Similarity(_JudgeScorer):
    """How far the response says the same as the reference, in meaning, content and length."""

    quantity = "similarity"
    name: str = "similarity"


class Precision(_JudgeScorer):
    """How exactly and correctly the response does what the instruction asks for."""

    quantity = "precision"
    name: str = "precision"


def _expectations(trace: Trace) -> dict[str, Any]:
    """What was logged on the trace, the newest of a name."""
    logged = [given for given in trace.info.assessments if given.expectation is not None]
    return {
        given.name: given.expectation.value for given in sorted(logged, key=lambda each: each.create_time_ms or 0)
    }
