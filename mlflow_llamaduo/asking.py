"""What every stage that asks the service LLM has in common: its caps, its progress, and what it is called."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.records import Grown, TaskPrompt
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.progress import Watched, watched
from mlflow_llamaduo.service_llm.client import Budget, ServiceLLM

Say = Callable[[str], None]


def budget(project: Project) -> Budget:
    """The caps that a project sets for its run and for the working folder."""
    folder = project.limits.folder_budget_usd
    return Budget(project.limits.budget_usd, float("inf") if folder is None else folder)


@contextmanager
def asking(description: str, total: int, unit: str, llm: ServiceLLM, calls: int, say: Say) -> Iterator[Watched]:
    """Progress of a stage that asks the service LLM: a bar with rate, failures and dollars."""
    with watched(description, total, unit, line=lambda: llm.meter.line(calls), say=say) as shown:
        llm.meter.watch = shown.refresh
        yield shown


def brought(grown: Grown) -> str:
    """What a round of synthesis brought, in a line."""
    reasons = Counter(rejected.reason for rejected in grown.rejected)
    line = f"{len(grown.kept)} new pairs kept"
    if reasons:
        line += "; rejected: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if (length := grown.figures.get("prompt_length_ratio")) is not None:
        responses, near = grown.figures["response_length_ratio"], grown.figures["nearest_seed_mean"]
        line += f"; prompts {length:.2f} and responses {responses:.2f} times as long as people's, "
        line += f"{100 * near:.0f} % of the words of the nearest one"
    return line


def asked(prompt: TaskPrompt) -> tuple[str, str]:
    """What of a prompt decides the replies."""
    return prompt.task, prompt.text


def given(inputs: list[Any]) -> list[Any]:
    """Inputs that a stage has at times only: without them its results of before are found."""
    return [inputs] if inputs else []


def refuse_mostly_failed(llm: ServiceLLM, calls: int, what: str, reasons: Sequence[str]) -> None:
    """A stage of which most has failed is no result.

    Raises:
        StageError: more than half of the calls failed.
    """
    if llm.meter.failed > calls / 2:
        raise StageError(
            f"{llm.model} failed {llm.meter.failed} of {calls} {what} ({next(iter(reasons), '')}); the others are "
            "kept: `llamaduo doctor` says more, and the same command asks for the rest"
        )
