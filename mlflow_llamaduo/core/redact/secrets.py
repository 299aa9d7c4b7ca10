"""Keys, tokens and passwords.

Three ways to be one: to look like a provider's key; to stand where a key stands (after `Bearer`, in a URL before
`@`); to be assigned to a name such as `api_key` or `password`, and not look like code or an example. A string that
is only random is none: hashes, digests and ids in code are random too.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain

from mlflow_llamaduo.core.redact.finding import Finding

# `\nAKIA...` within a JSON string: the n belongs to the line break.
START = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))"
PREFIXED = (
    r"sk-[\w-]{16,}+",  # OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek
    r"(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[A-Z0-9]{16}",
    r"gh[pousr]_[A-Za-z0-9]{30,}+|github_pat_\w{22,}+|gl(?:pat|ptt|rt)-[\w-]{20,}+",
    r"xox[abeprs]-[A-Za-z0-9-]{10,}+|xapp-[A-Za-z0-9-]{20,}+",
    r"AIza[\w-]{35}|ya29\.[\w-]{20,}+|GOCSPX-[\w-]{20,}+",
    r"[spr]k_(?:live|test)_[A-Za-z0-9]{16,}+|whsec_[A-Za-z0-9+/=]{20,}+",
    r"hf_[A-Za-z0-9]{30,}+|gsk_[A-Za-z0-9]{30,}+|xai-[A-Za-z0-9]{30,}+|r8_[A-Za-z0-9]{30,}+|nvapi-[\w-]{30,}+",
    r"(?:pplx|tvly)-[\w-]{20,}+|pypi-[\w-]{50,}+|npm_[A-Za-z0-9]{36}|SG\.[\w-]{16,}+\.[\w-]{16,}+|key-[0-9a-f]{32}",
    r"dop_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}|shp(?:at|ss|ca)_[0-9a-fA-F]{32}|hvs\.[\w-]{20,}+|\d{8,10}:AA[\w-]{33}",
)
TOKEN = re.compile(rf"{START}(?:{'|'.join(PREFIXED)})(?![A-Za-z0-9])")
WITH_HYPHENS = re.compile(r"sk-|gl|nvapi|pplx|tvly|pypi")
WEB_TOKEN = re.compile(rf"{START}eyJ[\w-]{{8,}}+\.[\w-]{{8,}}+(?:\.[\w-]*+){{0,3}}")
WEBHOOK = re.compile(r"hooks\.slack\.com/(?:services|workflows)/([\w/]{20,}+)")

PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
PEM_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
PEM_LINE = re.compile(r"[A-Za-z0-9+/=]{16}")
PEM_BODY = re.compile(r"(?:\s|\\[nr]|[A-Za-z0-9+/=]{16,}+)*+")  # of a key that was cut off
PEM_LENGTH = 16384  # characters; of 8192-bit RSA keys there are 6,400

BEARER = re.compile(r"\bbearer\s{1,3}([\w.~+/-]{12,}+={0,2})", re.I)
AUTHORIZATION = re.compile(
    r"authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:basic|token|apikey|digest)\s{1,3}([\w.~+/-]{8,}+={0,2})", re.I
)
IN_URL = re.compile(r"://[^\s/@:<>\"'`]{0,64}:([^\s/@<>\"'`]{3,128})@")

PASSWORD = r"password|passwd|pwd|passphrase|passcode|passwort|(?<=_)pass"  # noqa: S105
KEY = (
    r"(?:api|access|secret|private|account|auth|encryption|signing|master|subscription)[_ -]?key(?:[_-]?id)?"
    r"|secret|token|credentials?"
)
VALUE = r"(?:[\"'`](?P<quoted>[^\s\"'`<>]{6,256})[\"'`]|(?P<bare>[^\s\"'`<>,;&|]{6,256}))"
ASSIGNED = re.compile(  # in lower case: without IGNORECASE the engine skips to the next p, k, s ...
    rf"(?:(?P<password>{PASSWORD})|{KEY})\d{{0,2}}(?:\\?[\"'])?\]?"
    rf"(?:\s{{0,3}}(?:=>|:=|===?|!=|[:=>])\s{{0,3}}\\?|\s{{1,3}}is:?\s{{1,3}}){VALUE}"
)
FLAG = re.compile(rf"--(?:(?P<password>{PASSWORD})|{KEY})[ =](?P<quoted>(?!-)[^\s\"'`<>,;&|]{{6,256}})")

CODE = re.compile(
    r"[A-Za-z_]\w*(?:\(|\[|\.[A-Za-z_]|->|::)|[$%#@]?[{(\[]|\$[A-Za-z_]|%[A-Za-z]|/|https?:|[a-z][a-z0-9]*(?:_[a-z0-9]+)+$"
)
EXAMPLE = re.compile(r"your[_-]?|(.)\1*$|x{4}|\*{3}|\.\.\.|change_?me|placeholder|redacted|insert[_-]", re.I)
TEMPLATES = re.compile(r"\$\{|\{\{|\$\(|%\(|[A-Za-z_]\w*[(\[]")
ORDINARY = frozenset(("password", "passwd", "pass", "pwd", "secret", "user", "token", "pw"))

# What a text must hold, in lower case, to hold one: substrings, for `in` is the fastest search there is. Other keys
# have no mark, but a digit in a run of 15 or more of their characters.
NAMES = ("pass", "pwd", "key", "secret", "token", "credential")
MARKS = (*NAMES, "bearer", "authoriz", "://", "eyj", "sk-", "xox")
PREFIXES = ("ghp_", "gho_", "ghs_", "hf_", "gsk_", "npm_", "_live_", "_test_")
RUN_AFTER_DIGIT = r"(?<=[\w-]{7}\d)|[\w-]{7}"
RUN = re.compile(rf"\d(?:{RUN_AFTER_DIGIT})")


def may_hold_secret(text: str) -> bool:
    """False if the text holds no mark of a secret; one that has digits in a long run is not looked for here."""
    lower = text.lower()
    for mark in MARKS:  # any() with a generator takes twice as long, on every clean row
        if mark in lower:
            return True
    return "_" in lower and any(prefix in lower for prefix in PREFIXES)


def secrets(text: str) -> Iterator[Finding]:
    """Secrets; of an assignment, a URL or a header only the value. Two patterns may find the same place."""
    marked = may_hold_secret(text)
    if marked or RUN.search(text):
        yield from _formed(text, TOKEN, _real_token)
    if not marked:
        return
    lower = text.lower()
    if "private key" in lower:
        yield from _private_keys(text)
    for mark, pattern, test in BY_FORM:
        if mark in lower:
            yield from _formed(text, pattern, test)
    if any(name in lower for name in NAMES):
        yield from _assigned(text)


def _formed(text: str, pattern: re.Pattern[str], test: Callable[[str], bool]) -> Iterator[Finding]:
    for match in pattern.finditer(text):
        group = match.lastindex or 0
        value = match.group(group).rstrip(".")
        if test(value):
            yield Finding(match.start(group), match.start(group) + len(value), value)


def _private_keys(text: str) -> Iterator[Finding]:
    """PEM blocks. A header alone is code that reads keys; of a key that was cut off the rest is taken."""
    for begin in PEM.finditer(text):
        end = PEM_END.search(text, begin.end(), begin.end() + PEM_LENGTH) or PEM_BODY.match(text, begin.end())
        if end and PEM_LINE.search(text, begin.end(), end.end()):
            last = begin.end() + len(text[begin.end() : end.end()].rstrip())
            yield Finding(begin.start(), last, text[begin.start() : last])


def _real_token(value: str) -> bool:
    """Whether it is no example (`ghp_xxxx...`) and no name: `sk-loading-indicator-wrapper` is a CSS class."""
    if re.search(r"(.)\1{7}", value):
        return False
    if not WITH_HYPHENS.match(value):
        return True  # thirty letters in a row are no word
    run = re.search(r"[A-Za-z0-9]{16}", value)
    return re.search(r"\d", value) is not None and (run is not None or _kinds_of_letters(value) == 2)


def _kinds_of_letters(text: str) -> int:
    return bool(re.search("[a-z]", text)) + bool(re.search("[A-Z]", text))


def _any(_: str) -> bool:
    return True


def _not_an_example(value: str) -> bool:
    return value.lower() not in ORDINARY and not CODE.match(value) and not EXAMPLE.match(value)


def _bearer(value: str) -> bool:
    return re.search(r"\d", value) is not None and not EXAMPLE.match(value)


def _basic(value: str) -> bool:
    return re.search(r"\d", value) is not None or _kinds_of_letters(value) == 2


# A mark without which the pattern need not look; the pattern; whether what it finds may be one.
BY_FORM: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("eyj", WEB_TOKEN, _any),
    ("hooks.slack", WEBHOOK, _any),
    ("bearer", BEARER, _bearer),
    ("authoriz", AUTHORIZATION, _basic),
    ("://", IN_URL, _not_an_example),
)


def _assigned(text: str) -> Iterator[Finding]:
    lower = text.replace("\u0130", "I").lower()  # the one letter that becomes two
    for match in chain(ASSIGNED.finditer(lower), FLAG.finditer(lower)):
        quoted = match.group("quoted") is not None
        start, end = match.span("quoted" if quoted else "bare")
        value = text[start:end].rstrip(r".:!?)]}\,;")
        test = _may_be_password if match.group("password") else _may_be_key
        if not EXAMPLE.match(value) and test(value, quoted=quoted):
            yield Finding(start, start + len(value), value)


def _may_be_password(value: str, *, quoted: bool) -> bool:
    if len(value) < 6 or (CODE.match(value) and not quoted) or TEMPLATES.match(value):
        return False
    digit, letter = re.search(r"\d", value), re.search(r"[^\W\d_]", value)
    return bool(letter) and bool(digit or (quoted and re.search(r"[^\w.-]", value)))


def _may_be_key(value: str, *, quoted: bool) -> bool:
    return (
        len(value) >= 12
        and re.search(r"\d", value) is not None
        and _may_be_password(value, quoted=quoted)
        and _bits(value) >= 3
    )


def _bits(value: str) -> float:
    """Entropy in bits a character: of 16 random hexadecimal digits about 3, of a word or a counter less."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
