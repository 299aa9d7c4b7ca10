"""A pair with placeholders for what was found, and how much was found. The values go no further than this.

Numbers count within a row, in order of appearance: the same value is `<EMAIL_1>` wherever it stands, so that an
answer still refers to what the prompt says. Across rows they say nothing.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from mlflow_llamaduo.core.records import Message, Pair
from mlflow_llamaduo.core.redact.find import find, may_hold_any
from mlflow_llamaduo.core.redact.finding import Finding
from mlflow_llamaduo.core.redact.phones import REGIONS

KINDS = ("email", "phone", "card", "iban", "ip", "national_id", "secret")
ALL = frozenset(KINDS)


def redact(
    pair: Pair, *, kinds: Collection[str] = KINDS, regions: Sequence[str] = REGIONS
) -> tuple[Pair, dict[str, int]]:
    """The pair with every value of `kinds` replaced, and by kind how many places were.

    Args:
        pair: category and source are left as they are.
        kinds: some of `KINDS`.
        regions: countries (ISO 3166, two letters) whose phone numbers are known without `+`; the first that knows one
            decides.

    Returns:
        A pair without findings comes back as the same object, with an empty dict.

    Raises:
        ValueError: a kind that is none of `KINDS`: it would silently be left in.
    """
    texts, counts = _redacted([*(message.content for message in pair.prompt), pair.response], kinds, regions)
    if not counts:
        return pair, counts
    prompt = tuple(Message(turn.role, text) for turn, text in zip(pair.prompt, texts, strict=False))
    return replace(pair, prompt=prompt, response=texts[-1]), counts


def redact_text(
    text: str, *, kinds: Collection[str] = KINDS, regions: Sequence[str] = REGIONS
) -> tuple[str, dict[str, int]]:
    """As `redact`, for a single text."""
    texts, counts = _redacted([text], kinds, regions)
    return texts[0], counts


def _redacted(texts: list[str], kinds: Collection[str], regions: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    if not ALL.issuperset(kinds):
        unknown = set(kinds) - ALL
        raise ValueError(f"no kinds of values: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if not may_hold_any("\n".join(texts)):
        return texts, {}
    found = [find(text, kinds=kinds, regions=tuple(regions)) for text in texts]
    counts = Counter(kind for each in found for kind, _ in each)
    if not counts:
        return texts, {}
    name = _names("\n".join(texts))
    redacted = [_replaced(text, each, name) for text, each in zip(texts, found, strict=True)]
    return redacted, {kind: counts[kind] for kind in KINDS if counts[kind]}


def _replaced(text: str, found: list[tuple[str, Finding]], name: Callable[[str, str], str]) -> str:
    parts, at = [], 0
    for kind, finding in found:
        parts += [text[at : finding.start], name(kind, finding.key)]
        at = finding.end
    return "".join((*parts, text[at:]))


def _names(row: str) -> Callable[[str, str], str]:
    """Gives a value its placeholder; those that the row holds already stand for other values, and are passed over."""
    taken = set(re.findall(r"<[A-Z_]+_\d+>", row))
    given: dict[tuple[str, str], str] = {}
    last: Counter[str] = Counter()

    def name(kind: str, key: str) -> str:
        while (kind, key) not in given:
            last[kind] += 1
            placeholder = f"<{kind.upper()}_{last[kind]}>"
            if placeholder not in taken:
                given[kind, key] = placeholder
        return given[kind, key]

    return name
