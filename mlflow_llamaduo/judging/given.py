"""What a person or MLflow has at hand of an answer -> the `Response` that a judge is asked about.

| part | shapes |
| --- | --- |
| inputs | a text; turns; `messages`; `instruction`, `question`, ... with `input` or `context`; a single field |
| outputs | a text; turns, the last counts; `choices` of a completion; `output` of a response; `answer`, ... |
| expectations | `expected_response` or `reference`, in a shape of the outputs |

Objects of a client library (openai's, litellm's, MLflow's) are read as the JSON that they stand for. An empty answer
is one, and a bad one. A part that is no text is an error: the judges read text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_llamaduo.core.records import Message, Pair, Response
from mlflow_llamaduo.errors import DataError

LEADS = ("instruction", "question", "prompt", "query", "request", "input")
MORE = ("input", "context")
ANSWERS = ("response", "answer", "output", "completion", "prediction", "text", "content")
REFERENCES = ("expected_response", "reference")
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def response_of(inputs: Any, outputs: Any, expectations: Any) -> Response:
    """The answer in `outputs` to the instruction in `inputs`, and what it is compared with.

    Args:
        inputs: what the model was asked.
        outputs: what it answered.
        expectations: `{"expected_response": ...}`, the reference.

    Raises:
        DataError: one of them is missing or cannot be read; the message says how to give it.
    """
    try:
        asked, answered, expected = instruction(inputs), answer(outputs), reference(expectations)
    except RecursionError:
        raise DataError("inputs, outputs or expectations are nested hundreds deep") from None
    pair = Pair((Message("user", asked),), expected)
    return Response(pair.id, 0, asked, expected, answered, completion_tokens=0)


def instruction(inputs: Any) -> str:
    """The instruction as one text, as a judge reads it: several turns each with its role."""
    match _plain(inputs):
        case str(text) if text.strip():
            return text
        case [_, *_] as turns:
            return _conversation(turns)
        case {"messages": [_, *_] as turns, **beside}:
            return _conversation([*_system(beside), *turns])
        case dict(fields) if found := _instruction(fields):
            return found
        case dict(fields):
            raise DataError(
                f"no instruction in the inputs' fields ({_names(fields)}): name it instruction, question or prompt, "
                "or give messages"
            )
    raise DataError(f"the inputs are {_kind(inputs)}: give the instruction as a text, a field or messages")


def answer(outputs: Any) -> str:
    """The text of an answer."""
    match _plain(outputs):
        case str(text):
            return text
        case {"choices": [choice, *_]}:
            return _answered(choice)
        case {"messages": [*_, turn]} | [*_, turn] | ({"role": _} as turn):
            return _answered(turn)
        case {"output": [*items]}:
            return "\n\n".join(_content(item) for item in items if not _thought(item))
        case dict(fields) if name := _first(fields, ANSWERS):
            return answer(fields[name]) if isinstance(fields[name], dict) else _content({"content": fields[name]})
        case dict(fields) if len(fields) == 1:
            return answer(next(iter(fields.values())))
        case dict(fields):
            raise DataError(f"no answer in the outputs' fields ({_names(fields)}): name it response")
    raise DataError(f"the outputs are {_kind(outputs)}: give the answer as a text, or a predict_fn that returns it")


def reference(expectations: Any) -> str:
    """The answer that is known to be good."""
    given = _plain(expectations)
    name = _first(given, REFERENCES) if isinstance(given, dict) else None
    if name is None:
        has = f" ({_names(given)})" if isinstance(given, dict) and given else ""
        raise DataError(
            f"no reference to compare with in the expectations{has}: give every row "
            'expectations={"expected_response": "..."}'
        )
    return answer(given[name])


def _instruction(fields: Mapping[str, Any]) -> str | None:
    """The lead, a blank line, its input: as pairs of the coverage dataset have it."""
    lead = _first(fields, LEADS)
    if lead is None:
        return instruction(next(iter(fields.values()))) if len(fields) == 1 else None
    more = [instruction(fields[name]) for name in MORE if name != lead and fields.get(name)]
    return "\n\n".join([instruction(fields[lead]), *more])


def _conversation(turns: Sequence[Any]) -> str:
    said = [turn if isinstance(turn, dict) else {"role": "user", "content": turn} for turn in map(_plain, turns)]
    messages = [Message(str(turn.get("role", "user")), _content(turn)) for turn in said if not _thought(turn)]
    return Pair(tuple(messages), "").instruction


def _system(beside: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Anthropic's system message stands beside the turns."""
    return [{"role": "system", "content": beside["system"]}] if beside.get("system") else []


def _answered(turn: Any) -> str:
    match turn:
        case {"message": dict(inner)}:
            return _answered(inner)
        case {"text": str(text)}:
            return text
        case {"role": role} if role not in ("assistant", "model", "ai"):
            raise DataError(f"the outputs end with a turn of {str(role)[:40]!r}, not with the assistant's answer")
    return _content(turn)


def _content(turn: Any) -> str:
    """The text of a turn, or of its parts."""
    content = turn.get("content", turn.get("text")) if isinstance(turn, dict) else turn
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        calls = isinstance(turn, dict) and (turn.get("tool_calls") or turn.get("function_call"))
        raise DataError(
            "an answer calls a tool instead of saying something: only text can be judged"
            if calls
            else f"a message holds {_kind(content)}, not text"
        )
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind in TEXT_PARTS and isinstance(text, str):
            texts.append(text)
        elif kind not in THOUGHTS:
            raise DataError(f"a part of a message is {str(kind)[:40]!r}: only text can be judged")
    return "".join(texts)


def _thought(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("type") in THOUGHTS


def _plain(value: Any) -> Any:
    """A library's object as the JSON that it stands for."""
    for method in ("model_dump", "to_dict"):
        if callable(dump := getattr(value, method, None)) and not isinstance(value, type):
            return dump()
    return list(value) if isinstance(value, tuple) else value


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if fields.get(name) is not None), None)


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(str(name)[:40] for name in list(fields)[:8]) or "none"


def _kind(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN, as pandas fills a missing cell
        return "missing"
    return "empty" if value in ("", [], {}) else f"of type {type(value).__name__}"
