"""`offline/` models: stand-ins for a service LLM, so that everything runs without a key or a network.

They are no language models and say so. `offline/teacher` writes pairs by a grammar; `offline/judge` scores by
reference metrics. Both are a litellm provider: the prompts, the client and the parsers are those of a paid
model, and a stand-in reads nothing but the messages it is sent: `task` in them says which grammar is meant.
"""

import json
from typing import Any

from litellm import ModelResponse
from litellm.llms.custom_llm import CustomLLM, CustomLLMError
from litellm.types.utils import Choices, Message, Usage

from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.service_llm.offline.judges import assess
from mlflow_llamaduo.service_llm.offline.teachers import TEACHERS


class OfflineLLM(CustomLLM):
    """Answers `offline/teacher` and `offline/judge`."""

    def completion(self, model: str, messages: list[dict[str, str]], *_: Any, **__: Any) -> ModelResponse:
        """Reply to a request whose last message is a JSON object."""
        writer = {"teacher": teach, "judge": judge}.get(model)
        if writer is None:
            raise CustomLLMError(404, f"offline/{model} is unknown; there are offline/teacher and offline/judge")
        try:
            asked = json.loads(messages[-1]["content"])
            text = json.dumps(writer(asked), ensure_ascii=False)
        except (ValueError, KeyError, TypeError) as error:
            raise CustomLLMError(400, f"offline/{model} cannot read the request: {error!r}") from error
        read = sum(len(m["content"]) for m in messages) // 4
        return ModelResponse(
            model=f"offline/{model}",
            choices=[Choices(message=Message(content=text, role="assistant"), finish_reason="stop", index=0)],
            usage=Usage(prompt_tokens=read, completion_tokens=len(text) // 4, total_tokens=read + len(text) // 4),
        )

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """The same, for asynchronous callers."""
        return self.completion(*args, **kwargs)


def judge(asked: dict[str, Any]) -> dict[str, Any]:
    """Scores from 0 to 100 by comparing with the reference, as the task wants it."""
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
