"""What a source gives: rows with the place they came from, and places where a row should be but none can be read.

    Row(where, data | Unreadable)  ->  a pair that is kept, or BadRow(where, reason, detail)

Every row ends as one of the two; on the way to the second `Bad` is raised. Rejected rows are counted by their reason,
so reasons come from one vocabulary.
"""

from dataclasses import dataclass
from typing import Any

REASONS = {
    "encoding": "bytes that are not UTF-8, or half a character (a lone surrogate)",
    "not_json": "a line or a file that is not JSON",
    "not_csv": "lines that are not CSV, or columns without a usable header",
    "not_parquet": "a file, or a part of one, that is not Parquet",
    "not_gzip": "a compressed file that ends or breaks in the middle",
    "unknown_file": "a file of a kind that is not read",
    "cells": "a CSV row with more or fewer cells than the header names",
    "too_deep": "lists within lists without end",
    "unknown_shape": "a row in none of the known shapes",
    "bad_turn": "a message that names no speaker we know",
    "bad_field": "a category or source that is not text",
    "no_prompt": "nothing asked before the answer",
    "no_answer": "no answer, or an empty one",
    "not_text": "an image, a sound, a tool call or a number where text should be",
    "not_chat": "a logged call that is no chat: an embedding, an image, another API",
    "not_satisfactory": "a trace without the feedback that was asked for",
    "failed": "a logged call that failed",
    "cut_off": "an answer that stopped at its token limit or at a filter",
    "not_kept": "a log that holds a text in parts or not at all",
    "other_category": "a row of a category that was not asked for",
    "too_long": "more characters than allowed",
    "duplicate_id": "an id that an earlier row has",
    "duplicate": "the prompt and answer of an earlier row",
}
"""Every reason for which a row is not kept, with what it means."""


class Bad(ValueError):  # noqa: N818 - a bad row is data, and no error of the program
    """A row that cannot be used.

    Args:
        reason: a key of `REASONS`.
        detail: what a person needs, in one line.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place of a source that holds no row: the line is not JSON, the file not Parquet, the trace no chat.

    `reason` is a key of `REASONS` that rows are counted by, `detail` what a person needs.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source: `where` is `file:line`, `file row 7`, `trace tr-...`; `data` is what stands there."""

    where: str
    data: Any | Unreadable


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was not kept: its place, a key of `REASONS`, and one line for a person."""

    where: str
    reason: str
    detail: str


def shown(value: object) -> str:
    """A value of a stranger's row, fit for one short line of a message."""
    match value:
        case None:
            return "None"
        case str():
            return repr(value if len(value) <= 40 else f"{value[:40]}...")
        case bool() | int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
