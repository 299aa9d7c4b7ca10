"""Phone numbers, by libphonenumber's tables.

Ten digits may be an order number, so a number counts in four forms only: with `+` and a country's code; in the groups
of North America (415-555-0132); with its trunk zero or its area in brackets, and in groups (020 7946 0958); or after
a word like `phone`, in any form. libphonenumber's own matcher takes dates, ISBNs and netmasks for numbers in one
region or the other, at a millisecond a row; here its tables are asked about these forms only.
"""

import re
from collections.abc import Iterator
from itertools import islice

from mlflow_llamaduo.core.redact.finding import Finding, word_before

REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "AU", "BR")

AMERICA = frozenset(("US", "CA"))

SEVEN_DIGITS = re.compile(r"\d(?:[ .()/-]{0,3}\d){6}")
NOT_BEFORE = r"(?<![\w+$€£#.:/-])(?<!\d )"
NOT_AFTER = r"(?!\w)(?![ .:-]{0,3}\d)(?!/\d)"
INTERNATIONAL = re.compile(r"(?<![\w+.])(?:\+|00(?=[1-9]\d{0,2}[ .()/-]))\(?\d(?:[ .()/-]{0,3}\d){6,16}(?!\w)")
AMERICAN = re.compile(
    r"(?<![\w+$€£#./-])(?:1[ .-])?(?:\([2-9]\d\d\) ?\d{3}[ .-]|[2-9]\d\d([.-])\d{3}\1)\d{4}(?!\w)(?![./-]\d)"
)
AREA = r"(?:\((?!(?:19|20)\d\d\))0?\d{2,5}\)|0[1-9]\d{0,4})"
TRUNK = re.compile(rf"{NOT_BEFORE}{AREA}(?:(?:[ .-]{{1,3}}| ?/ ?(?!0))\d{{2,8}}){{1,5}}{NOT_AFTER}")
ANY = re.compile(r"(?<![\w+$€£.#])(?<!\d,)\(?\d(?:[ .()/-]{0,3}\d){6,16}(?!\w)")
LOCAL = re.compile(r"\d{3}-\d{4}")

WORDS = re.compile(
    r"phone|\btel\b|telefon|tél|mobile?\b|móvil|celular|handy|rufnummer|\bcell\b|\bfax\b|\bcall(?:ed|ing|s)?\b|\bdial"
    r"|\bring\b|\breach\b|\btext(?:ed|ing)? (?:me|us|him|her|them)\b|\bsms\b|whatsapp|hotline|\bcontact",
    re.I,
)
OTHERS = re.compile(
    r"isbn|issn|\border\b|invoice|serial|\bpart\b|\bsku\b|\bref\b|\bid\b|\bdoi\b|\bcase\b|ticket", re.I
)
ZIP = re.compile(r"\d{5}-\d{4}")
DATE = re.compile(
    r"(?:19|20)\d{6}(?!\d)|(?:\d{1,2}([./-])\d{1,2}\1(?:\d\d){1,2}|\d{4}([./-])\d{1,2}\2\d{1,2})(?![\d./-])"
)


def known_regions() -> frozenset[str]:
    """The countries whose phone numbers are known (ISO 3166, two letters)."""
    import phonenumbers

    return frozenset(phonenumbers.SUPPORTED_REGIONS)


def phones(text: str, regions: tuple[str, ...]) -> Iterator[Finding]:
    """Numbers that are valid in one of `regions`, or anywhere with `+`; keys are without country and trunk prefix."""
    if not SEVEN_DIGITS.search(text):
        return
    for match in INTERNATIONAL.finditer(text):
        if not DATE.match(match.group().lstrip("+")):
            yield from _valid(match, (None,))
    yield from _in_groups(text, regions)
    for match in ANY.finditer(text):
        if word_before(text, match.start(), WORDS) and not DATE.match(match.group()):
            yield from _valid(match, regions)


def _in_groups(text: str, regions: tuple[str, ...]) -> Iterator[Finding]:
    if AMERICA & set(regions):
        for match in AMERICAN.finditer(text):
            if not _something_else(text, match):
                yield Finding(match.start(), match.end(), _digits(match.group())[-10:])
    for match in TRUNK.finditer(text):
        if 10 <= len(_digits(match.group())) <= 15 and not _something_else(text, match):
            yield from _valid(match, regions, cuts=1)


def _something_else(text: str, match: re.Match[str]) -> bool:
    if DATE.match(match.group()) or ZIP.fullmatch(match.group()):
        return True
    return word_before(text, match.start(), OTHERS) and not word_before(text, match.start(), WORDS)


def _valid(match: re.Match[str], regions: tuple[str | None, ...], *, cuts: int = 4) -> Iterator[Finding]:
    """The longest valid number at the beginning of `match`: "020 7946 0958 24/7" says when, too."""
    for written in islice(_prefixes(match.group()), cuts):
        if written[0] not in "+(0" and len(_digits(written)) > 11:
            continue
        if key := _significant(written, regions):
            yield Finding(match.start(), match.start() + len(written), key)
            return


def _prefixes(written: str) -> Iterator[str]:
    yield written
    for gap in reversed(list(re.finditer(r"(?<=\d)[ .()/-]+", written))):
        yield written[: gap.start()]


def _significant(written: str, regions: tuple[str | None, ...]) -> str | None:
    """The national significant number, or None if it is valid nowhere."""
    import phonenumbers

    if LOCAL.fullmatch(written) and AMERICA & set(regions):
        return _digits(written)
    for region in regions:
        try:
            number = phonenumbers.parse(re.sub("^00", "+", written) if region is None else written, region)
        except phonenumbers.NumberParseException:
            continue
        # Invented numbers (+1 555 123 4567) are possible, not valid; with `+` and in groups they count.
        grouped = region is None and re.search(r"\d[ .()/-]+\d{2}", written) is not None
        if phonenumbers.is_valid_number(number) or (grouped and phonenumbers.is_possible_number(number)):
            return phonenumbers.national_significant_number(number)
    return None


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)
