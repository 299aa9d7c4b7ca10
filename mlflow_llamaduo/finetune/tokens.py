"""A pair as token ids, and which of them are learned: those of the response, and the one that ends it.

A prompt is made as it will be when the model is asked (`prompt_ids`). The response is encoded by itself behind it, so
that no token lies across the border. What a template writes behind the end token is never generated, and is left off.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlflow_llamaduo.chat_template import Turn, prompt_ids, text_ids, turn

GAP = "\n[...]\n"
"""Stands for what was dropped from a text: the model sees that something is missing, and so does a reader."""

LAST = {"assistant": 1, "system": 2}
"""Whose texts are shortened after the users': context is in what users write, instructions are the system's."""


@dataclass(frozen=True, slots=True)
class Row:
    """`ids` of prompt and response, of which the first `prompt` are not learned; `dropped` tokens of it were lost."""

    ids: tuple[int, ...]
    prompt: int
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class TooLong:
    """A pair that cannot be learned at this length, and why."""

    reason: str


def encode(
    tokenizer: Any,
    prompt: Sequence[dict[str, str]],
    response: str,
    *,
    max_length: int,
    too_long: Literal["shorten", "reject"],
) -> Row | TooLong:
    """The tokens of a pair, at most `max_length` of them; the response is whole, and ends with one end token.

    `shorten` drops the middle of the longest user text, and of the next one if that is not enough: in closed QA the
    question stands before the passage or behind it. The template and all roles stay.

    Args:
        tokenizer: one that `with_template` has prepared.
        prompt: the messages before the response.
        response: what is learned.
        max_length: tokens of prompt and response.
        too_long: what to do with a longer row.

    Raises:
        DataError: the template refuses the roles of the prompt.
    """
    learned = _learned(tokenizer, response, turn(tokenizer))
    ids = prompt_ids(tokenizer, prompt)
    if len(ids) + len(learned) <= max_length:
        return Row((*ids, *learned), len(ids))
    size = f"{len(ids)} tokens of prompt and {len(learned)} of response, of at most {max_length}"
    if too_long == "reject":
        return TooLong(size)
    short = _shortened(tokenizer, prompt, max_length - len(learned))
    if short is None:
        return TooLong(f"{size}: the response and the template alone are too long")
    return Row((*short, *learned), len(short), len(ids) - len(short))


def mask_report(tokenizer: Any, rows: Sequence[Row], count: int = 3) -> str:
    """Markdown for a person: the text of the first `count` rows, what is learned in ⟦ ⟧, and a table of tokens."""
    lines = ["# What is learned", "", "Text in ⟦ ⟧ is learned, the rest is read. ⏎ is a line's end.", ""]
    for number, row in enumerate(rows[:count], 1):
        lines += _reported(tokenizer, row, number)
    return "\n".join(lines)


def _learned(tokenizer: Any, response: str, shape: Turn) -> list[int]:
    text = response.lstrip() if shape.left else response
    text = text.rstrip() if shape.right else text
    if shape.before.strip():  # a header that the template opens only with the answer
        opening = list(tokenizer.encode(shape.before, add_special_tokens=False))
        return [*opening, *text_ids(tokenizer, text + shape.after), shape.end]
    return [*text_ids(tokenizer, shape.before + text + shape.after), shape.end]


def _shortened(tokenizer: Any, prompt: Sequence[dict[str, str]], room: int) -> list[int] | None:
    """The longest ids of the prompt that fit, texts cut one after another; None: even the bare template does not."""
    chat = [dict(message) for message in prompt]
    for place in sorted(range(len(chat)), key=lambda i: (LAST.get(chat[i]["role"], 0), -len(chat[i]["content"]))):
        text = chat[place]["content"]
        chat[place]["content"] = ""
        best = prompt_ids(tokenizer, chat)
        if len(best) > room:
            continue
        fits, fails = 0, len(text)  # characters kept
        while fails - fits > 1:
            kept = (fits + fails) // 2
            chat[place]["content"] = _without_middle(text, kept)
            ids = prompt_ids(tokenizer, chat)
            if len(ids) <= room:
                fits, best = kept, ids
            else:
                fails = kept
        return best
    return None


def _without_middle(text: str, kept: int) -> str:
    """Both ends of a text, cut between words where there are any nearby."""
    middle = (kept + 1) // 2
    head, tail = text[:middle], text[len(text) - (kept - middle) :]
    return re.sub(r"(?<=\s)\S{0,30}$", "", head) + GAP + re.sub(r"^\S{0,30}(?=\s)", "", tail)


def _reported(tokenizer: Any, row: Row, number: int) -> list[str]:
    read, learned = (
        tokenizer.decode(list(part), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for part in (row.ids[: row.prompt], row.ids[row.prompt :])
    )
    text = f"{read}⟦{learned}⟧".replace("\n", "⏎\n")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    table = [f"| {i} | {token} | {_shown(tokenizer, token)} | {_mark(i, row)} |" for i, token in enumerate(row.ids)]
    lost = f", {row.dropped} dropped" if row.dropped else ""
    return [
        f"## Row {number}: {row.prompt} tokens of prompt{lost}, {len(row.ids) - row.prompt} learned",
        "",
        f"{fence}text",
        text,
        fence,
        "",
        "| # | id | token | learned |",
        "| --- | --- | --- | --- |",
        *table,
        "",
    ]


def _mark(place: int, row: Row) -> str:
    return "yes" if place >= row.prompt else ""


def _shown(tokenizer: Any, token: int) -> str:
    """A token for a cell: part of a character has no text, and is shown as the vocabulary writes it."""
    text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if "\ufffd" in text or not text:
        text = str(tokenizer.convert_ids_to_tokens(token))
    text = text.replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥").replace(" ", "␣")
    return "".join(f"&#{ord(c)};" if c in "|`<>&*_[]\\~" else c for c in text)
