"""Rows that litellm's proxy logged -> turns.

Two kinds are met: its standard payload, one JSON object a call, as the log writers put it into buckets (`messages`,
`response`, `call_type`, `status`); and rows of its spend log, where the request's body is JSON text in
`proxy_server_request` and `messages` is mostly empty. Both hold failures, calls that are no chat, answers that were
cut off, and texts that the proxy was told not to keep, or kept only the ends of. None of them is a pair.
"""

import json
from typing import Any

from mlflow_llamaduo.coverage.rows import Bad, shown
from mlflow_llamaduo.coverage.turns import REDACTED, STOPPED

MARKS = frozenset({"call_type", "litellm_call_id", "proxy_server_request"})
"""Fields that only such a log has."""

FIELDS = ("messages", "request", "response", "status", "error_str", *MARKS)

TRUNCATED = "(litellm_truncated skipped "
PAYLOAD = {"choices", "object", "usage"}


def is_log(row: dict[str, Any]) -> bool:
    """Whether a row is a logged call: it says so, or it holds a request or turns and an API's response."""
    if not MARKS.isdisjoint(row):
        return True
    if "response" not in row or not ("messages" in row or "request" in row):
        return False
    return isinstance(_payload(row["response"]), dict) or isinstance(from_json(row.get("request")), dict)


def log_turns(row: dict[str, Any]) -> list[Any]:
    """What was asked, and the answer as the last turn.

    Raises:
        Bad: the call failed, was no chat, or its texts are not all there.
    """
    if row.get("status") == "failure":
        raise Bad("failed", f"the call failed: {shown(row.get('error_str') or 'no message')}")
    turns = [*_asked(row), _answered(row)]
    for turn in turns:
        _whole(turn)
    return turns


def _asked(row: dict[str, Any]) -> list[Any]:
    """The turns of the request: of the row itself, or of the request's body."""
    body = from_json(row.get("proxy_server_request", row.get("request")))
    if isinstance(body, dict) and isinstance(inner := from_json(body.get("body")), dict):
        body = inner
    for holder in (row, body if isinstance(body, dict) else {}):
        asked = from_json(holder.get("messages") or holder.get("prompt"))
        if isinstance(asked, list) and asked:
            return asked
        if isinstance(asked, str) and asked.strip():
            return [{"role": "user", "content": asked}]
    raise Bad("not_kept", "the log holds no messages: were prompts kept (store_prompts_in_spend_logs)?")


def _answered(row: dict[str, Any]) -> dict[str, Any]:
    response = _payload(row.get("response"))
    if isinstance(response, str) and response.strip():
        return {"role": "assistant", "content": response}
    if not response:
        raise Bad("not_kept", "the log holds no response")
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(choices, list):
        raise Bad("not_chat", f"the response is no chat completion (call type {shown(row.get('call_type'))})")
    if len(choices) > 1:
        raise Bad("no_answer", f"{len(choices)} answers: nobody said which of them is good")
    choice = choices[0] if choices else None
    if not isinstance(choice, dict):
        raise Bad("no_answer", "the response has no choice")
    if choice.get("finish_reason") in STOPPED:
        raise Bad("cut_off", f"the answer was cut off (finish_reason {choice['finish_reason']})")
    message = choice.get("message")
    content = message if isinstance(message, dict) else {"content": choice.get("text")}
    return {**content, "role": "assistant"}


def _payload(response: Any) -> Any:
    """An API's response, out of JSON text if need be; a text that merely looks like JSON is an answer itself."""
    value = from_json(response)
    if isinstance(value, dict) and (not value or PAYLOAD & value.keys()):
        return value
    return response


def _whole(turn: Any) -> None:
    content = turn.get("content") if isinstance(turn, dict) else None
    texts = (
        [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else [content]
    )
    for text in texts:
        if isinstance(text, str) and (text == REDACTED or TRUNCATED in text):
            raise Bad("not_kept", "the proxy kept this text in parts or not at all; its other logs may have it whole")


def from_json(value: Any) -> Any:
    """The value of a JSON text that is an object or a list; anything else as it is.

    Raises:
        Bad: the text is nested too deeply.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
    except RecursionError:
        raise Bad("too_deep", "a JSON text that is nested too deeply") from None
