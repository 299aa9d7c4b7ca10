"""Reading the JSON that a service LLM wrote, in whatever wrapping it came.

Calling and reading are apart: a better reader needs no new call. json-repair does the mending (fences, prose
around, cut ends); we only say which object is wanted and what a score is.
"""

import json
import re
from typing import Any

from json_repair import repair_json

_DECODER = json.JSONDecoder()


def last_object(text: str, *, having: str) -> dict[str, Any] | None:
    """The last complete JSON object in `text` that has the key `having`, else a mended one; None if there is none.

    The last one wins: a model that corrects itself means its last word, and an answer quoted before the
    verdict cannot stand in for it. One that was cut does not win over one that is whole: half of 85 is an 8.
    """
    complete, end = _complete(text, having)
    rest = text[end:]
    if complete is not None and rest.count("{") != rest.count("}"):
        return complete
    return _mended(rest, having) or complete


def _complete(text: str, having: str) -> tuple[dict[str, Any] | None, int]:
    """The last object that is JSON as it stands, and where it ends; (None, 0) if there is none."""
    found: dict[str, Any] | None = None
    end = position = 0
    while (position := text.find("{", position)) >= 0:
        try:
            value, after = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            position += 1
            continue
        if having in value:
            found, end = whole(value), after
        position = after
    return found, end


def _mended(text: str, having: str) -> dict[str, Any] | None:
    try:
        found = whole(repair_json(text, return_objects=True, skip_json_loads=False))
    except (RecursionError, ValueError):  # nested a thousand deep: nobody's answer
        return None
    candidates = found if isinstance(found, list) else [found]
    objects = [c for c in candidates if isinstance(c, dict) and having in c]
    return objects[-1] if objects else None


def points(value: Any) -> float | None:
    """A score from 0 to 100 as models write it: 85, 85.5, "85", "85/100", "85 %". Anything else is None.

    True is no number, and a score out of range is not brought into it.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?)\s*(?:/\s*100|%)?\s*", value)
        value = float(match.group(1)) if match else None
    if not isinstance(value, int | float) or not 0 <= value <= 100:  # NaN is not, nor an int too large for a float
        return None
    return float(value)


def whole(value: Any) -> Any:
    """The value with half characters (lone surrogates) replaced: no file, database or request can hold them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return value
