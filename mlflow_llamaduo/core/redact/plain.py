"""Typography made plain, one character for one, so that places in the plain text are places in the text itself.

Phone numbers come with no-break spaces and en dashes, and in Arabic, Indic and full-width digits. Detectors need not
know: they read this.
"""

import sys
import unicodedata
from functools import cache

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d"
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
MARKS = {"\uff20": "@", "\uff0e": ".", "\uff0b": "+", "\uff08": "(", "\uff09": ")", "\uff1a": ":", "\uff1d": "="}


def plain(text: str) -> str:
    """The text in plain digits, dashes and spaces; as long as it was."""
    return text if text.isascii() else text.translate(_table())


@cache
def _table() -> dict[int, str]:
    digits = {code: str(unicodedata.digit(chr(code))) for code in range(128, sys.maxunicode) if chr(code).isdecimal()}
    dashes, spaces = dict.fromkeys(map(ord, DASHES), "-"), dict.fromkeys(map(ord, SPACES), " ")
    return digits | dashes | spaces | {ord(mark): ascii_ for mark, ascii_ in MARKS.items()}
