"""Judging for callers that come one by one and from many threads, as MLflow's scorers do: a thread a row and scorer.

    ask(response) -> waits -> the one judging thread of this process -> Future of its judgements

A service LLM is asked from one event loop, by one schedule and through one writer of the reply store; litellm too
mixes up two loops that run at once (its LoggingWorker). So the thread takes all that waits, and what comes in
meanwhile. Of equal requests that are open together the client asks one, and later ones it finds in the store: two
scorers cost as much as one.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Annotated, Self
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import Judgement, Response, TaskPrompt
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.judging.judge import judge_each
from mlflow_llamaduo.judging.prompt import GENERAL
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.store import REPLIES
from mlflow_llamaduo.service_llm.terms import missing_key, terms

Judged = tuple[Judgement, ...]

_THREAD = ThreadPoolExecutor(1, "llamaduo-judge")
_OPENING = Lock()


class Bench:
    """One judge, asked about one response after another.

    Args:
        llm: the judge, and how it is asked.
        prompt: what it is told of the task.
        repeats: judgings a response.
        budget_usd: dollars for all that this process asks of it.
    """

    def __init__(self, llm: ServiceModel, prompt: TaskPrompt, repeats: int, budget_usd: float) -> None:
        self._llm = llm
        self._prompt = prompt
        self._repeats = repeats
        self._budget = Budget(budget_usd)
        self._purpose = Purpose(f"evaluate {uuid4().hex[:12]}", "judge")
        self._waiting: deque[tuple[Response, Future[Judged]]] = deque()
        self._open: deque[Future[Judged]] = deque()

    def ask(self, response: Response) -> "Future[Judged]":
        """The response's judgements, once they are there.

        The future raises BudgetError or ConfigError as `judge` does. One that is cancelled before its turn costs
        nothing.
        """
        future: Future[Judged] = Future()
        self._waiting.append((response, future))
        _THREAD.submit(self._judge)
        return future

    def _judge(self) -> None:
        if not self._waiting:
            return
        try:
            with ReplyStore(REPLIES) as store:
                llm = ServiceLLM(self._llm, store=store, budget=self._budget, purpose=self._purpose)
                judged = judge_each(
                    self._take(), llm=llm, repeats=range(self._repeats), done=lambda _: None, prompt=self._prompt
                )
                for _, own in judged:  # in the order they were taken
                    self._open.popleft().set_result(own)
        finally:  # what ended it before its time is raised where results are waited for, before their turn too
            if error := sys.exception():
                deque(self._take(), maxlen=0)
                while self._open:
                    self._open.popleft().set_exception(error)

    def _take(self) -> Iterator[Response]:
        while self._waiting:
            response, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                self._open.append(future)
                yield response


def _a_name(variable: str) -> str:
    if not variable.isidentifier() or variable != variable.upper():
        raise ValueError("give the *name* of an environment variable, such as OPENAI_API_KEY")
    return variable


def _a_text(prompt: str) -> str:
    if prompt.startswith("prompts:/") or prompt.endswith((".md", ".txt")):
        raise ValueError(
            "give the text itself, not where it is: Path(...).read_text(), mlflow.genai.load_prompt(...)"
        )
    return prompt


class JudgeFields(BaseModel):
    """Which judge, and how it is asked: the fields that the scorers and the evaluator have in common.

    `judge` is a preset's name or litellm's (`openai/gpt-4o`), `task` goes to the judge with the data, `prompt` is its
    system message (empty: the general one). Prices are dollars per million tokens, for a model that neither presets
    nor litellm know. `budget_usd` is for all that one process asks with these fields.
    """

    # A key in the place of its variable's name is not shown; a field with a slip in its name is not passed over.
    model_config = ConfigDict(hide_input_in_errors=True, extra="forbid")

    judge: str = "offline/judge"
    task: str = ""
    repeats: Annotated[int, Field(ge=1)] = 1
    api_base: str | None = None
    api_key_env: Annotated[str, AfterValidator(_a_name)] | None = None
    input_usd_per_mtok: Annotated[float, Field(ge=0)] | None = None
    output_usd_per_mtok: Annotated[float, Field(ge=0)] | None = None
    budget_usd: Annotated[float, Field(ge=0)] = 10.0
    prompt: Annotated[str, AfterValidator(_a_text)] = ""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        """Told now, not for every row."""
        terms(self._model)
        if why := missing_key(self._model):
            raise ConfigError(why)
        return self

    @property
    def bench(self) -> Bench:
        """Where to ask; the same for equal fields."""
        prompt = TaskPrompt(self.task, self.prompt, "given") if self.prompt else _general(self.task)
        with _OPENING:
            return _bench(self._model, prompt, self.repeats, self.budget_usd)

    @property
    def _model(self) -> ServiceModel:
        return ServiceModel(
            model=self.judge,
            api_base=self.api_base,
            api_key_env=self.api_key_env,
            input_usd_per_mtok=self.input_usd_per_mtok,
            output_usd_per_mtok=self.output_usd_per_mtok,
        )


@cache
def _bench(llm: ServiceModel, prompt: TaskPrompt, repeats: int, budget_usd: float) -> Bench:
    return Bench(llm, prompt, repeats, budget_usd)


def _general(task: str) -> TaskPrompt:
    return TaskPrompt(task, GENERAL.text, GENERAL.source)
