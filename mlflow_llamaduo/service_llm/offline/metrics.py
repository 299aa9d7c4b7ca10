"""A score with its reason: what the judges of `offline/judge` give. They reckon with `core.overlap`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Given:
    """A score as a share, 0 to 1, and what it was reckoned from."""

    share: float
    why: str
