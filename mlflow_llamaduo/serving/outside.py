"""The service LLM beside a service: it answers what the local model fails, and compares answers of a shadow.

Each has its own dollars a day, counted in the working folder's reply store like all others, so several ingresses, and
a service that was started again, keep to them together. Prompts go to the provider of `service_llm.generator`, or of
the judge: both are off until somebody gives them dollars.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.records import Comparison, Response
from mlflow_llamaduo.errors import LlamaDuoError
from mlflow_llamaduo.judging.pairwise import compare
from mlflow_llamaduo.service_llm.client import Budget, Failure, Purpose, Reply, ReplyStore, Request, ServiceLLM
from mlflow_llamaduo.service_llm.store import REPLIES
from mlflow_llamaduo.serving.protocol import ChatRequest, Delta, Usage

log = logging.getLogger("ray.serve")


class Outside:
    """Asks service LLMs on behalf of a service; a Ray Serve deployment of its own, since litellm loads for seconds.

    Args:
        projects: by task; they name the models, and the dollars.
    """

    def __init__(self, projects: Mapping[str, Project]) -> None:
        self._projects = projects
        self._store = ReplyStore(REPLIES.absolute())

    async def answer(self, task: str, request: ChatRequest) -> tuple[str, tuple[tuple[Delta, ...], Usage]] | None:
        """The generator's name and answer to a conversation, or None where it has none or its dollars are spent."""
        project = self._projects[task]
        most = request.max_completion_tokens or request.max_tokens or project.serving.max_new_tokens
        llm = project.service_llm.generator.model_copy(update={"retries": 0, "batch": False, "max_tokens": most})
        messages = tuple({"role": message.role, "content": message.text} for message in request.messages)
        asked = Request(messages)
        try:
            found = await asyncio.to_thread(self._ask, llm, asked, project.serving.fallback.usd_per_day, "fallback")
        except LlamaDuoError as error:
            log.warning("llamaduo: the service LLM does not answer either: %s", error)
            return None
        if isinstance(found, Failure):
            log.warning("llamaduo: the service LLM does not answer either: %s", found.reason)
            return None
        text, finish = _until(found.text, request.stops), "length" if found.cut else "stop"
        return llm.model, ((Delta(0, text, (), finish),), Usage(found.input_tokens, found.output_tokens))

    async def compare(self, task: str, request: ChatRequest, own: str, other: str) -> tuple[Comparison, ...]:
        """The judge's two comparisons of a version's answer with the champion's; none where dollars are spent."""
        project = self._projects[task]
        instruction = "\n\n".join(f"{message.role}: {message.text}" for message in request.messages)
        shown = instruction if len(request.messages) > 1 else request.messages[0].text
        response = Response("shadow", 0, shown, "", own, 0)
        judge = project.service_llm.judge.model_copy(update={"batch": False})
        try:
            return await asyncio.to_thread(self._compared, judge, response, other, project.serving.shadow.usd_per_day)
        except LlamaDuoError as error:
            log.warning("llamaduo: a shadow's answer is not judged: %s", error)
            return ()

    def _ask(self, llm: ServiceModel, request: Request, usd: float, stage: str) -> Reply | Failure:
        ((_, answer),) = self._llm(llm, usd, stage).complete_many([request])
        return answer

    def _compared(self, llm: ServiceModel, own: Response, other: str, usd: float) -> tuple[Comparison, ...]:
        return compare([own], [other], opponent="champion", llm=self._llm(llm, usd, "shadow"), done=lambda _: None)

    def _llm(self, llm: ServiceModel, usd: float, stage: str) -> ServiceLLM:
        today = datetime.now(UTC).date().isoformat()
        return ServiceLLM(
            llm, store=self._store, budget=Budget(usd), purpose=Purpose(f"serving {stage} {today}", stage)
        )


def _until(text: str, stops: tuple[str, ...]) -> str:
    """Text before the first stop string."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))].strip()
