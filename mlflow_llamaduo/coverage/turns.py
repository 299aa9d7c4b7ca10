"""A list of turns -> prompt and answer: what all shapes have in common.

A turn is an object with `role` (or `from`) and `content` (or `value`); content is text, or parts of text. The
conversation ends at its last assistant turn that may be learned: a `weight` of 0 (OpenAI's mark) says it may not, and
the one before it is taken. What follows is dropped. Only conversations of text are pairs: an image, or a tool that
spoke, changes what the right answer is.
"""

from typing import Any

from mlflow_llamaduo.core.records import Message
from mlflow_llamaduo.coverage.rows import Bad, shown

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
"""Names of speakers, in all shapes."""

TOOLS = ("tool", "function", "function_call", "function_response", "observation", "ipython")
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
STOPPED = ("length", "content_filter", "max_tokens", "model_context_window_exceeded", "incomplete")
"""Why an answer ended that did not end by itself, as the providers' APIs have it."""
REDACTED = "redacted-by-litellm"
"""What litellm logs in the place of a text that it was told not to log."""
EMPTY = {"user": ("no_prompt", "a user message"), "assistant": ("no_answer", "an assistant message")}


def conversation(turns: list[Any]) -> tuple[tuple[Message, ...], str]:
    """The turns before the answer, and the answer.

    Raises:
        Bad: the turns are no conversation that can be learned, with the reason.
    """
    roles = [_role(turn) for turn in turns]
    end = _answer(turns, roles)
    before: list[Message] = []
    for role, turn in zip(roles[:end], turns, strict=False):
        content = _content(turn)
        if role == "system" and (not content or str(content).isspace()):
            continue  # it says nothing
        before.append(Message(role, clean(content, role, turn)))
    if not before or before[-1].role != "user":
        raise Bad("no_prompt", "no user message before the assistant's answer")
    return tuple(before), clean(_content(turns[end]), "assistant", turns[end])


def clean(content: Any, role: str, turn: Any = None) -> str:
    """Text without the line ends around it and the spaces after it; the indentation of code stays.

    Raises:
        Bad: it is no text, empty, or cannot be written as UTF-8.
    """
    if isinstance(turn, dict) and (turn.get("tool_calls") or turn.get("function_call")):
        raise Bad("not_text", f"{_a(role)} calls a tool: its part in the answer cannot be learned")
    if isinstance(content, list):
        content = joined(content, role)
    if content and not isinstance(content, str):
        raise Bad("not_text", f"{_a(role)} is {shown(content)}, not text")
    text: str = (content or "").strip("\r\n").rstrip()
    if not text:
        raise Bad(EMPTY.get(role, EMPTY["user"])[0], f"{_a(role)} has no text")
    return encodable(text)


def encodable(text: str) -> str:
    """The text itself, if a file can hold it.

    Raises:
        Bad: it holds half a character; no file, database or request could carry it later.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Bad("encoding", "a text with half a character in it (a lone surrogate)") from None
    return text


def _role(turn: Any) -> str:
    name = None
    if isinstance(turn, dict):
        name = turn.get("role")
        if name is None:
            name = turn.get("from")
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None and isinstance(name, str):
        if name in TOOLS:
            raise Bad("not_text", f"a {name} message: only conversations of text can be learned")
        role = ROLES.get(name.strip().lower())
    if role is None:
        raise Bad("bad_turn", f"a message's role must be one of system, user, assistant, not {shown(name)}")
    return role


def _answer(turns: list[Any], roles: list[str]) -> int:
    for number in range(len(turns) - 1, -1, -1):
        if roles[number] == "assistant" and turns[number].get("weight") != 0:
            return number
    if "assistant" in roles:
        raise Bad("no_answer", "every assistant message has weight 0")
    raise Bad("no_answer", "no assistant message")


def _content(turn: dict[str, Any]) -> Any:
    content = turn.get("content")
    return turn.get("value") if content is None else content


def joined(parts: list[Any], role: str) -> str:
    """The text of a turn's parts: those of an answer go on in mid-sentence, those of a prompt are paragraphs.

    A model's thoughts are left out.

    Raises:
        Bad: a part is no text.
    """
    texts = []
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind in THOUGHTS:
            continue
        text = part.get("text") if kind in TEXT_PARTS else None
        if not isinstance(text, str):
            raise Bad("not_text", f"a part of a message is no text but {shown(kind or part)}")
        texts.append(text)
    return ("" if role == "assistant" else "\n").join(texts)


def _a(role: str) -> str:
    return EMPTY[role][1] if role in EMPTY else f"a {role} message"
