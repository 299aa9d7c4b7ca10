"""Numbers that prove themselves: cards, IBANs and IP addresses.

A card is a number in the form and the number range of a card network that passes Luhn's check; an IBAN has its
country's length and passes modulo 97. An IP address is four numbers that might as well be a version, so what stands
before it is asked.
"""

import ipaddress
import re
from collections.abc import Iterator
from functools import cache

from mlflow_llamaduo.core.redact.finding import Finding, word_before

CARD = re.compile(
    r"[2-6](?<!\w.)(?<!\d[.-].)(?:\d{12,18}"
    r"|\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{3}([ -])\d{6}\2\d{4,5})(?!\w)(?![.-]\d)"
)
NETWORKS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|6011|64[4-9]\d|65\d\d|35(?:2[89]|[3-8]\d)|62\d\d)\d{12}"
    r"|(?:50|5[6-9]|6\d)\d{11,17}"
)
# 15 and 16 digits are the common lengths; others are product codes and timestamps more often than cards.
COMMON = (15, 16)
CARD_WORDS = re.compile(
    r"card|visa|maestro|mastercard|amex|diners|credit|debit|karte|carte|tarjeta|\bcc\b|\bpan\b", re.I
)

# Not the checks of each country's banks besides: those that stdnum knows are today's only.
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9]{4})(?:[ -]?[A-Za-z0-9]){11,30}")

IPV4 = re.compile(r"\d(?<![\w.].)(?<![A-Za-z_]-.)(?:\d{0,2}\.\d{1,3}\.\d{1,3}\.\d{1,3})(?!\w)(?!\.\d)(?!-[A-Za-z])")
IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{2,}+(?:\.\d{1,3}){0,3}+(?!\w)")
VERSION_WORDS = re.compile(
    r"(?:\bv|§|[=~<>!]=|\^|\b(?:ver|version|release|build|revision|rev|update|upgrade|section|chapter|clause|paragraph"
    r"|article|step|firmware|sdk|driver|oid|(?:object)?identifier)s?\b[\s.:=#(\"']*(?:number|no\.?|to|from|is)?"
    r"[\s\"']*)\s?$",
    re.I,
)
ADDRESS_WORDS = re.compile(
    r"\bip(?:v4)?\b|\bip[_-]|address|host|server|dns|ping|client|remote|gateway|://|subnet", re.I
)
NOBODYS = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
SOMEBODYS_V6 = tuple(
    map(ipaddress.IPv6Network, ("2000::/3", "fc00::/7", "fe80::/10", "::ffff:0:0/96", "64:ff9b::/96"))
)


def cards(text: str) -> Iterator[Finding]:
    """Card numbers, in one piece or in the groups that are printed on cards."""
    from stdnum import luhn

    for match in CARD.finditer(text):
        for number in _with_and_without_code(match.group()):
            digits = re.sub(r"\D", "", number)
            if NETWORKS.fullmatch(digits) and luhn.is_valid(digits):
                if len(digits) in COMMON or word_before(text, match.start(), CARD_WORDS):
                    yield Finding(match.start(), match.start() + len(number), digits)
                break


def _with_and_without_code(number: str) -> tuple[str, ...]:
    # "4111 1111 1111 1111 123" is a card of 19 digits, or one of 16 and the code from its back.
    return (number, number[:19]) if len(number) == 23 else (number,)


def ibans(text: str) -> Iterator[Finding]:
    """International bank account numbers, in one piece or in groups."""
    from stdnum import iban

    at = 0
    while match := IBAN.search(text, at):
        at = match.start() + 4  # a number that begins inside a false start is found as well
        if not (length := _iban_length(match.group()[:2].upper())):
            continue
        places = [place for place in range(match.start(), match.end()) if text[place] not in " -"][:length]
        key = "".join(text[place] for place in places).upper()
        end = places[-1] + 1
        if len(key) == length and not text[end : end + 1].isalnum() and iban.is_valid(key, check_country=False):
            yield Finding(match.start(), end, key)
            at = end


@cache
def _iban_length(country: str) -> int:
    """Characters of an IBAN of this country, from the structure in stdnum's table; 0 for no country of IBANs."""
    from stdnum import numdb

    found = [values for _, values in numdb.get("iban").info(country) if "bban" in values]
    return 4 + sum(map(int, re.findall(r"\d+", found[0]["bban"]))) if found else 0


def ips(text: str) -> Iterator[Finding]:
    """IP addresses of both versions, private ones and those for documentation too.

    Loopback, `0.0.0.0`, link-local, netmasks and multicast are nobody's and stay: code needs them.
    """
    for match in IPV4.finditer(text):
        if (key := _v4(match.group())) and _an_address(text, match):
            yield Finding(match.start(), match.end(), key)
    for match in IPV6.finditer(text) if text.count(":") > 1 else ():
        written = re.sub("(?<!:):$", "", match.group())  # "fe80::1: no answer"
        if key := _v6(written):
            yield Finding(match.start(), match.start() + len(written), key)


def _v4(written: str) -> str | None:
    try:
        address = ipaddress.IPv4Address(written)
    except ValueError:
        return None
    return None if any(address in network for network in NOBODYS) else str(address)


def _an_address(text: str, match: re.Match[str]) -> bool:
    """Whether it is no version and no heading: four single digits (1.2.3.4) need a word like `host` before them."""
    if word_before(text, match.start(), VERSION_WORDS):
        return False
    return len(match.group()) > len("1.2.3.4") or word_before(text, match.start(), ADDRESS_WORDS)


def _v6(written: str) -> str | None:
    # `Face::Bad` is C++, `fc00::` in `fc00::/7` a network: only the ranges in use count, with a digit, and whole.
    if written.count(":") < 2 or written.endswith("::") or len(written) > 45 or not re.search(r"\d", written):
        return None
    try:
        address = ipaddress.IPv6Address(written)
    except ValueError:
        return None
    if address.ipv4_mapped and any(address.ipv4_mapped in network for network in NOBODYS):
        return None
    return str(address) if any(address in network for network in SOMEBODYS_V6) else None
