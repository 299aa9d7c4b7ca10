"""The spans of a trace -> the conversation of one call, as MLflow records openai, anthropic, litellm and langchain.

Which call of a trace? The root if it is one itself; else, of the spans of type CHAT_MODEL or LLM that ended well, the
one that ended last (after retries, after the other steps of a chain). What surrounds it is not read, even if it looks
like a chat: an agent's root has neither the system prompt nor the passages that were found. Only a trace without any
such span is read at its root, as a function traced by hand.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_llamaduo.coverage.rows import Bad, shown
from mlflow_llamaduo.coverage.turns import REDACTED, STOPPED, THOUGHTS, TOOLS, joined

Turn = dict[str, Any]
Call = Mapping[str, Any]

CALLS = ("CHAT_MODEL", "LLM")
ELSEWHERE = ("previous_response_id", "conversation")
OBJECT = re.compile(r"<[\w.]+ object (\S+ )?at 0x[0-9a-f]+>|<\w*APIResponse \[.*>")
"""What MLflow writes for a stream of anthropic's, or a raw response of openai's, that it cannot look into."""


def chat(spans: Sequence[Call]) -> list[Turn]:
    """The conversation of one trace: the messages of the request, and the answer as the last.

    Args:
        spans: each with `name`, `type` (MLflow's span type), `root`, `ok`, `error` (text), `end` (nanoseconds),
            `inputs` and `outputs` (as JSON would have them).

    Raises:
        Bad: the trace holds no chat of text, with the reason (a ValueError).
    """
    roots = [span for span in spans if span["root"]]
    calls = [span for span in spans if span["type"] in CALLS] or roots
    if not calls:
        raise Bad("not_kept", "MLflow has not all of its spans: a call ended after the trace, or they were deleted")
    ended = [span for span in calls if span["ok"]]
    if not ended:
        raise Bad("failed", f"the call failed: {shown(calls[-1]['error'] or 'no message')}")
    call = next((span for span in ended if span["root"]), None) or max(ended, key=lambda span: span["end"])
    inputs, outputs = call["inputs"], call["outputs"]
    turns = [*_system(inputs, outputs), *_asked(inputs, call["name"]), _answered(outputs)]
    return [{"role": turn.get("role"), "content": _text(turn)} for turn in turns if turn.get("type") not in THOUGHTS]


def _system(inputs: Any, outputs: Any) -> list[Turn]:
    """What stands beside the messages: anthropic's system, the instructions of openai's responses.

    Litellm's spans of the responses API have them in the output only.
    """
    for holder in (inputs, outputs):
        if isinstance(holder, dict):
            if any(holder.get(name) for name in ELSEWHERE) or isinstance(holder.get("prompt"), dict):
                raise Bad("not_kept", "a part of the request is kept by the provider, not in the trace")
            if said := holder.get("system") or holder.get("instructions"):
                return [{"role": "system", "content": said}]
    return []


def _asked(inputs: Any, name: str) -> list[Turn]:
    match inputs:
        case {"messages": [_, *_] as turns} | {"input": [_, *_] as turns}:
            pass
        case {"messages": str(prompt)} | {"input": str(prompt)} | {"prompt": str(prompt)} | [str(prompt)]:
            turns = [prompt]
        case _:
            raise Bad(
                "not_chat", f"no messages in span {shown(name)}, the call to the model or all that was recorded"
            )
    return [{"role": "user", "content": turn} if isinstance(turn, str) else _turn(turn) for turn in turns]


def _turn(turn: Any) -> Turn:
    if not isinstance(turn, dict):
        raise Bad("bad_turn", f"a message is {shown(turn)}")
    if "role" not in turn and turn.get("type") not in THOUGHTS:
        raise Bad("not_text", f"{shown(turn.get('type'))} among the messages")
    return turn


def _answered(outputs: Any) -> Turn:
    match outputs:
        case str() if not OBJECT.fullmatch(outputs):
            return {"role": "assistant", "content": outputs}
        case str() | None:
            raise Bad("not_kept", "no answer was recorded: it was streamed, or the reading of it ended early")
        case {"choices": [{"message": dict()} | {"text": str()} as choice]}:
            _whole(choice.get("finish_reason"))
            return {**(choice.get("message") or {"content": choice.get("text")}), "role": "assistant"}
        case {"choices": [_, _, *_] as choices}:
            raise Bad("no_answer", f"{len(choices)} answers: nobody said which of them is good")
        case {"output": [*items]}:
            _whole(outputs.get("status"))
            said = [_turn(item) for item in items if not isinstance(item, dict) or item.get("type") not in THOUGHTS]
            return {"role": "assistant", "content": "\n\n".join(_text(item) for item in said)}
        case {"role": "assistant"}:
            _whole(outputs.get("stop_reason"))
            return dict(outputs)
        case _:
            raise Bad("not_chat", "what came back is no answer of a chat model")


def _whole(stopped: Any) -> None:
    if stopped in STOPPED:
        raise Bad("cut_off", f"the answer was cut off ({stopped})")


def _text(turn: Turn) -> str:
    """The text of a turn."""
    role, content = turn.get("role"), turn.get("content")
    if turn.get("tool_calls") or turn.get("function_call") or role in TOOLS:
        raise Bad("not_text", "a tool was called: its part in the answer cannot be learned")
    if isinstance(content, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]  # LangChain has bare strings
        content = joined(parts, str(role))
    if content == REDACTED:
        raise Bad("not_kept", "litellm was told not to log texts (turn_off_message_logging)")
    if not isinstance(content, str) or (role == "assistant" and not content.strip()):
        refused = " (the model refused)" if turn.get("refusal") else ""
        reason = "no_answer" if role == "assistant" else "not_text"
        raise Bad(reason, f"a message of {shown(role)} has no text{refused}")
    return content
