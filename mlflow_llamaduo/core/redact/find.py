"""Where the values stand in a text: every kind's detector, in the order of precedence.

The order is that of how sure a detector is: a secret may hold an e-mail (`https://user:password@host.org`), an IBAN
holds what looks like a phone number. What one detector has found is covered before the next one looks, so that
findings never overlap; then all look again, until there is nothing: what stood beside a finding may be one now, and a
second redaction of the same text must find nothing new.
"""

import re
from collections.abc import Callable, Collection, Iterable
from functools import partial

from mlflow_llamaduo.core.redact.emails import emails
from mlflow_llamaduo.core.redact.finding import Finding
from mlflow_llamaduo.core.redact.national import national_ids
from mlflow_llamaduo.core.redact.numbers import cards, ibans, ips
from mlflow_llamaduo.core.redact.phones import phones
from mlflow_llamaduo.core.redact.plain import plain
from mlflow_llamaduo.core.redact.secrets import RUN_AFTER_DIGIT, may_hold_secret, secrets

Detector = Callable[[str], Iterable[Finding]]

# In the order of precedence; phone numbers are last and know regions besides.
DETECTORS: dict[str, Detector] = {
    "secret": secrets,
    "email": emails,
    "iban": ibans,
    "card": cards,
    "national_id": national_ids,
    "ip": ips,
}

# Ordinary texts need two, of which the second finds nothing. In one that needs more than these each finding uncovers
# the next, and to follow them would take the square of its length: such a text is hostile, and is replaced whole.
PASSES = 8

# Six digits close together, dots between four numbers, colons, letters and digits as in tax numbers. All begin with a
# digit, so that the regex engine skips to the next one.
NUMBERS = re.compile(
    r"\d(?:(?:[ .()/-]{0,3}\d){5}|\d{0,2}\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]{0,3}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]"
    r"|(?<=[A-Z]\d)\d?[A-Z]\d\d[A-Z]|(?<=[A-Z]{5}\d)\d{3}[A-Z]"
    rf"|{RUN_AFTER_DIGIT})"
)


def may_hold_any(text: str) -> bool:
    """False for nearly all texts that hold nothing, in a few microseconds: most rows are clean."""
    text = plain(text)
    return "@" in text or "::" in text or NUMBERS.search(text) is not None or may_hold_secret(text)


def find(text: str, *, kinds: Collection[str], regions: tuple[str, ...]) -> list[tuple[str, Finding]]:
    """Kind and finding of every value in `text`, by place; they do not overlap."""
    rest = plain(text)
    found: list[tuple[str, Finding]] = []
    detectors: dict[str, Detector] = {**DETECTORS, "phone": partial(phones, regions=regions)}
    chosen = {kind: detector for kind, detector in detectors.items() if kind in kinds}
    for _ in range(PASSES):
        before = len(found)
        for kind, detector in chosen.items():
            new = _apart(detector(rest))
            found += [(kind, finding) for finding in new]
            rest = _covered(rest, new)
        if len(found) == before:
            return sorted(found, key=lambda each: each[1].start)
    return [(found[-1][0], Finding(0, len(text), text))]


def _apart(findings: Iterable[Finding]) -> list[Finding]:
    """Of findings that overlap the first, and of those with the same start the longest."""
    apart: list[Finding] = []
    for finding in sorted(findings, key=lambda each: (each.start, -each.end)):
        if not apart or finding.start >= apart[-1].end:
            apart.append(finding)
    return apart


def _covered(text: str, findings: list[Finding]) -> str:
    """The text with `<`, NULs, `>` over the findings: as long as before, and to detectors what a placeholder is."""
    parts, at = [], 0
    for finding in findings:
        parts += [text[at : finding.start], "<", "\0" * (finding.end - finding.start - 2), ">"]
        at = finding.end
    return "".join((*parts, text[at:]))
