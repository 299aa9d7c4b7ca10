"""Redaction: personal values and secrets out of a pair, before it is stored or sent.

    row.py       redact(): pair in; pair and counts out
    find.py      which detector looks first; what is seen at a glance to hold nothing
    plain.py     typography made plain
    emails.py  phones.py  numbers.py (card, IBAN, IP)  national.py  secrets.py      the detectors

What a detector looks for has a form that can be checked: a check sum, a table, a prefix, a word beside it. Names and
street addresses have none, and are not found (docs/how-to/redaction.md). A false finding destroys data, so a number
that might as well be an order number, a date or a version stays.
"""

from mlflow_llamaduo.core.redact.phones import REGIONS, known_regions
from mlflow_llamaduo.core.redact.row import KINDS, redact, redact_text

__all__ = ["KINDS", "REGIONS", "known_regions", "redact", "redact_text"]
