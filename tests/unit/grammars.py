"""The data files of the offline teacher, and the rules that hold for all of them."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from mlflow_llamaduo.service_llm.offline.templates import read

HOLE, NAME, RANGE = re.compile(r"\{([^{}]*)\}"), re.compile(r"\{(\w+)\}"), re.compile(r"\d+-\d+(/\d+)?")


@cache
def grammar(task: str) -> Mapping[str, Any]:
    """What a task's data file says."""
    return read(task)


def names(template: str) -> set[str]:
    """The slots and words that every expansion of the template draws on, and those of its choices."""
    return set(NAME.findall(template))


def unknown_holes(template: str, known: set[str]) -> list[str]:
    """Holes that nothing fills, and braces that are none."""
    found = []
    while hole := HOLE.search(template):
        if "|" not in hole[1] and hole[1] not in known and not RANGE.fullmatch(hole[1]):
            found.append(hole[1])
        template = template[: hole.start()] + "x" + template[hole.end() :]
    return found + re.findall(r"[{}|]", template)
