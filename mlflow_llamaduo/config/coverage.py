"""Where the pairs come from, what of them is taken, and how they are split."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mlflow_llamaduo.config.sections import Listed, Positive, Section, nearest
from mlflow_llamaduo.core.redact import KINDS, REGIONS


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"unknown kind{nearest(kind, KINDS)}; known: {', '.join(KINDS)}")
    return kind


class Coverage(Section):
    """Where the satisfactory pairs come from, and the split. Rows are counted in pairs."""

    source: str = "coverage.jsonl"
    """A file or folder, relative to the task's folder (`--source`: to the current one);
    `hub:<dataset>[@<revision>][#<split>]`; `traces:<experiment>`."""
    categories: Annotated[tuple[str, ...], Listed] = ()
    """Further names of `category` in the source, compared without case, spaces, `_` and `-`."""
    trace_filter: str = ""
    """MLflow's filter of traces."""
    feedback: str = ""
    """`name=value`, or `name` for true: the feedback that says a trace is satisfactory; empty takes all that ended
    well."""
    redact: Literal["auto"] | bool = "auto"
    """Personal data and keys, in coverage and new pairs; `auto`: where pairs come from traces."""
    redact_kinds: Annotated[tuple[Annotated[str, AfterValidator(_known_kind)], ...], Listed] = KINDS
    """What is redacted, of these."""
    phone_regions: Annotated[tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...], Listed] = REGIONS
    """Countries whose phone numbers are known without `+`."""
    max_characters: Positive = 100_000
    """Characters of prompt and response; longer rows are left out."""
    test_rows: Annotated[int, Field(ge=2)] = 24
    """Pairs that are held out for the gate."""
    dev_rows: Positive = 12
    """Pairs that choose the epoch."""

    @property
    def redacts(self) -> bool:
        """Whether redaction is on."""
        return self.source.startswith("traces:") if self.redact == "auto" else self.redact
