"""`offline/` models: stand-ins for a service LLM, so that everything runs without a key or a network.

They are no language models and say so. `offline/teacher` writes pairs by a grammar and answers plain prompts by
extraction; `offline/judge` scores, and compares two answers, by reference metrics. Both are a litellm provider: the
prompts, the client and the parsers are those of a paid model, and a stand-in reads nothing but the messages it is
sent. Which of its two jobs is meant is told by the fields of the request; `task` says which grammar, or metric.
"""

import json
from typing import Any

from litellm import ModelResponse
from litellm.llms.custom_llm import CustomLLM, CustomLLMError
from litellm.types.utils import Choices, Message, Usage

from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.service_llm.offline.answers import answer
from mlflow_llamaduo.service_llm.offline.judges import assess
from mlflow_llamaduo.service_llm.offline.pairwise import prefer
from mlflow_llamaduo.service_llm.offline.teachers import TEACHERS

ORDER = frozenset({"task", "example", "count", "batch"})
"""The fields of a request for pairs. JSON that lacks one of them is somebody's prompt, and is answered as one."""


class OfflineLLM(CustomLLM):
    """Answers `offline/teacher` and `offline/judge`."""

    def completion(self, model: str, messages: list[dict[str, str]], *_: Any, **__: Any) -> ModelResponse:
        """Reply to the last message; a plain prompt is all the messages together."""
        reply = {"teacher": _teacher, "judge": _judge}.get(model)
        if reply is None:
            raise CustomLLMError(404, f"offline/{model} is unknown; there are offline/teacher and offline/judge")
        try:
            text = reply([message["content"] for message in messages])
        except (ValueError, KeyError, TypeError) as error:
            raise CustomLLMError(400, f"offline/{model} cannot read the request: {error!r}") from error
        read, written = (max(1, count // 4) for count in (sum(len(m["content"]) for m in messages), len(text)))
        return ModelResponse(
            model=f"offline/{model}",
            choices=[Choices(message=Message(content=text, role="assistant"), finish_reason="stop", index=0)],
            usage=Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written),
        )

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """The same, for asynchronous callers."""
        return self.completion(*args, **kwargs)


def _teacher(contents: list[str]) -> str:
    asked = _object(contents[-1])
    if asked is not None and asked.keys() >= ORDER:
        return json.dumps(teach(asked), ensure_ascii=False)
    return answer("\n\n".join(contents))


def _judge(contents: list[str]) -> str:
    asked = _object(contents[-1])
    if asked is None:
        raise ValueError("the last message is no JSON object")
    return json.dumps(judge(asked), ensure_ascii=False)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # a thousand brackets are a prompt too
        return None
    return found if isinstance(found, dict) else None


def judge(asked: dict[str, Any]) -> dict[str, Any]:
    """Scores from 0 to 100 by comparing with the reference, as the task wants it; or the better of two answers."""
    if "first" in asked and "second" in asked:
        return prefer(asked)
    task, instruction = str(asked.get("task", "")), str(asked.get("instruction", ""))
    similarity, precision = assess(task, str(asked["reference"]), str(asked["response"]), instruction)
    return {
        f"{name}_assessment": {"score": round(100 * given.share, 1), "reason": f"offline stand-in: {given.why}"}
        for name, given in (("similarity", similarity), ("precision", precision))
    }


def teach(asked: dict[str, Any]) -> dict[str, Any]:
    """New pairs by grammar. Every request, and so every example and batch number, is a seed of its own.

    Raises:
        ValueError: there is no grammar for the task.
    """
    write = TEACHERS.get(str(asked.get("task", "")))
    if write is None:
        raise ValueError(f"no grammar for task {asked.get('task')!r}; there are {', '.join(TEACHERS)}")
    pairs = write(seed=int(digest(asked), 16), count=int(asked["count"]))
    return {"contents": [{"instruction": p.instruction, "response": p.response} for p in pairs]}
