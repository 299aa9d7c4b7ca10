"""A page with its blocks made anew, and the Markdown that blocks are made of."""

import re
from collections.abc import Iterable, Mapping, Sequence

BLOCK = re.compile(r"(?<=<!-- make reference: )(?P<name>[^\n]+?) -->\n.*?\n(?=<!-- end -->)", re.DOTALL)


def with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """The page's text with each block as it is to be.

    Raises:
        ValueError: the page has a block that is not made, or lacks one, or has one twice.
    """
    there = [found["name"] for found in BLOCK.finditer(text)]
    if sorted(there) != sorted(blocks):
        wrong = sorted(set(there) ^ set(blocks)) or sorted({name for name in there if there.count(name) > 1})
        raise ValueError(f"blocks that stand in the page but are not made, or the other way round: {wrong}")
    return BLOCK.sub(lambda found: f"{found['name']} -->\n\n{blocks[found['name']].strip()}\n\n", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") or " " for cell in line) + " |" for line in lines)


def prose(text: str) -> str:
    """A text of the code in one line; `<name>` stays what it is, in code and out of it."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def code(*names: str) -> str:
    """Names as code, with commas between them."""
    return ", ".join(f"`{name}`" for name in names)
