"""Pairs out of a JSONL file in the No Robots shape: `{"messages": [{"role", "content"}, ...], "category": str}`."""

from pathlib import Path
from typing import Any

from mlflow_llamaduo.core.records import Message, Pair, PairSet
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import read_jsonl

ROLES = ("system", "user", "assistant")


def read_pairs(path: Path, *, category: str = "") -> PairSet:
    """Read and check a whole file; exact copies count once.

    Args:
        path: a JSONL file, UTF-8.
        category: keep rows of this category only (rows without one are kept); empty keeps all.

    Raises:
        DataError: a row is no pair; the message lists file, line and reason of every such row.
    """
    if not path.is_file():
        raise DataError(f"no coverage file {path}: write one row a line, {__doc__.split(': ', 1)[1]}")
    pairs: dict[str, Pair] = {}
    for pair in read_jsonl(path, to_pair):
        if not category or pair.category in ("", category):
            pairs.setdefault(pair.id, pair)
    return PairSet(tuple(pairs.values()))


def to_pair(row: Any) -> Pair:
    """One row as a pair; a conversation ends at its last assistant turn.

    Raises:
        ValueError: the row is no pair, with the reason.
    """
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not turns:
        raise ValueError('no "messages" list')
    messages = [_message(turn) for turn in turns]
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if not messages:
        raise ValueError("no assistant message")
    *prompt, answer = messages
    if not prompt or prompt[-1].role != "user":
        raise ValueError("no user message before the assistant's answer")
    category, source = row.get("category", ""), row.get("source", "coverage")
    if not isinstance(category, str) or not isinstance(source, str):
        raise ValueError('"category" and "source" must be text')
    return Pair(tuple(prompt), answer.content, category, source)


def _message(turn: Any) -> Message:
    role = turn.get("role") if isinstance(turn, dict) else None
    content = turn.get("content") if isinstance(turn, dict) else None
    if role not in ROLES:
        raise ValueError(f"a message's role must be one of {', '.join(ROLES)}, not {role!r}")
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"a {role} message has no text")
    return Message(role, content.strip("\r\n").rstrip())  # the indentation of code stays
