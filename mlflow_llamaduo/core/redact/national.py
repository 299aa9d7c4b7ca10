"""Numbers that states give to persons.

Most are nine to eleven digits with a check digit, so that one order number in ten would pass. A rule without `words`
has a form that hardly anything else has (letters in their places, a date inside, two check digits, its own
punctuation); a number of any other kind counts only after a word that says what it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from mlflow_llamaduo.core.redact.finding import Finding, word_before


@dataclass(frozen=True, slots=True)
class Rule:
    """A form; the module of stdnum that checks it, if there is a check; words of which one is needed."""

    form: re.Pattern[str]
    checked_by: tuple[str, str] | None = None
    words: re.Pattern[str] | None = None


def _rule(country: str, module: str, form: str, words: str = "") -> Rule:
    # The first character comes before what must not stand before it: so the regex engine skips to it at once.
    at = form.index("]") + 1 if form.startswith("[") else len(r"\d")
    first, rest = form[:at], form[at:]
    return Rule(
        re.compile(rf"{first}(?<!\w.)(?<!\d[./-].){rest}(?!\w)(?![./-]\d)"),
        (country, module) if module else None,
        re.compile(rf"(?<!\w)(?:{words})(?![^\W\d])", re.IGNORECASE) if words else None,
    )


# Nine digits close together, or a digit beside a capital: without either no rule need look.
LIKELY = re.compile(r"\d(?:(?:[ .+-]?\d){8}|-?[A-Z](?![a-z])|(?<=[A-Z]\d)|(?<=[A-Z][ -]\d))")

RULES = (
    _rule("us", "", r"\d(?!(?<=0)00-|(?<=6)66-)\d{2}-(?!00)\d{2}-(?!0000)\d{4}"),
    _rule("us", "", r"\d\d{2}[ -]?\d{2}[ -]?\d{4}", "ssn|itin|social security(?: number)?|social"),
    _rule("gb", "", r"[A-CEGHJ-TW-Z][A-CEGHJ-NP-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]"),
    _rule("gb", "nhs", r"\d\d{2}[ -]?\d{3}[ -]?\d{4}", "nhs"),
    _rule("ca", "sin", r"\d\d{2}[ -]?\d{3}[ -]?\d{3}", "sin|social insurance(?: number)?|nas"),
    _rule(
        "de", "idnr", r"\d\d ?\d{3} ?\d{3} ?\d{3}", "steuer-?id(?:nr)?|\\w*identifikationsnummer|id-?nr|tin|tax id"
    ),
    _rule("fr", "nir", r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d"),
    _rule("es", "dni", r"\d\d{7}-?[A-HJ-NP-TV-Z]"),
    _rule("es", "nie", r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]"),
    _rule("it", "codicefiscale", r"[A-Z][A-Z]{5}[\dL-V]{2}[A-EHLMPRST][\dL-V]{2}[A-Z][\dL-V]{3}[A-Z]"),
    _rule("nl", "bsn", r"\d\d{3}[. ]?\d\d[. ]?\d{3}", "bsn|burgerservicenummer|sofi-?nummer"),
    _rule("pl", "pesel", r"\d\d{10}", "pesel"),
    _rule("br", "cpf", r"\d\d\d\.\d{3}\.\d{3}-\d\d"),
    _rule("br", "cpf", r"\d\d{10}", "cpf"),
    _rule("in_", "aadhaar", r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}", "aadha+r|uidai"),
    _rule("in_", "pan", r"[A-Z][A-Z]{4}\d{4}[A-Z]", "pan|permanent account"),
    _rule("se", "personnummer", r"\d\d{5}(?:\d\d)?[-+]\d{4}"),
    _rule("fi", "hetu", r"\d\d{5}[-+A]\d{3}[\dA-FHJ-NPR-Y]"),
    _rule("dk", "cpr", r"\d\d{5}-?\d{4}", "cpr(?:[- ]nr|[- ]nummer)?|personnummer"),
    _rule("no", "fodselsnummer", r"\d\d{5} ?\d{5}", "f[øo]dselsnummer|personnummer"),
    _rule("be", "nn", r"\d\d[. ]\d\d[. ]\d\d[- ]\d{3}[. ]\d\d"),
    _rule("ch", "ssn", r"\d(?<=7)56\.\d{4}\.\d{4}\.\d\d"),
    _rule("at", "vnr", r"\d\d{3} ?\d{6}", "sv-?nr|svnr|sv-nummer|sozialversicherungsnummer"),
    _rule("pt", "nif", r"\d\d\d ?\d{3} ?\d{3}", "nif|contribuinte"),
    _rule("ie", "pps", r"\d\d{6}[A-W][ABHWTX]?", "ppsn?"),
    _rule("kr", "rrn", r"\d\d{5}-\d{7}"),
    _rule("cn", "ric", r"\d\d{16}[\dX]"),
    _rule("mx", "curp", r"[A-Z][A-Z]{3}\d{6}[HM][A-Z]{5}[\dA-Z]\d"),
    _rule("za", "idnr", r"\d\d{12}", "id(?: number| no\\.?)?|identity"),
    _rule("au", "tfn", r"\d\d\d ?\d{3} ?\d{2,3}", "tfn|tax file(?: number)?"),
)


def national_ids(text: str) -> Iterator[Finding]:
    """Personal numbers of the countries in `RULES`. Two rules may find the same place."""
    if not LIKELY.search(text):
        return
    for rule in RULES:
        for match in rule.form.finditer(text):
            if rule.words is None or word_before(text, match.start(), rule.words):
                key = re.sub(r"\W", "", match.group())
                if rule.checked_by is None or _passes(match.group(), *rule.checked_by):
                    yield Finding(match.start(), match.end(), key)


def _passes(number: str, country: str, name: str) -> bool:
    try:
        return bool(_module(country, name).is_valid(number))
    except KeyError:  # stdnum 2.2: a Chinese number of a district that is not in its table, all else being right
        return True


@cache
def _module(country: str, name: str) -> Any:
    import stdnum

    return stdnum.get_cc_module(country, name)
