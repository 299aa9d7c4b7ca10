"""What came of a version's shadow: copies of requests that another version had answered, and duels of the answers."""

import json
from dataclasses import asdict, dataclass, replace

from mlflow_llamaduo.core.pairwise import Result

COUNTED: dict[Result, str] = {"win": "wins", "tie": "ties", "loss": "losses", "flip": "flips", "unjudged": "unjudged"}


@dataclass(frozen=True, slots=True)
class Shadowed:
    """Counts of one version's shadow against version `against`: copies, those without an answer, and duels."""

    against: int
    copies: int = 0
    failed: int = 0
    same: int = 0
    wins: int = 0
    ties: int = 0
    losses: int = 0
    flips: int = 0
    unjudged: int = 0

    def copied(self, *, failed: bool, same: bool) -> "Shadowed":
        """With one more copy: whether it got no answer, or the very same."""
        return replace(self, copies=self.copies + 1, failed=self.failed + failed, same=self.same + same)

    def dueled(self, result: Result) -> "Shadowed":
        """With one more duel."""
        name = COUNTED[result]
        return replace(self, **{name: getattr(self, name) + 1})

    def text(self) -> str:
        """As a tag of the version holds it."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(tag: str | None, against: int) -> "Shadowed":
        """What a tag says of the same opponent; counts from nothing where it says of another one, or nothing."""
        found = Shadowed.read(tag)
        return found if found and found.against == against else Shadowed(against)

    @staticmethod
    def read(tag: str | None) -> "Shadowed | None":
        """What a tag says, or None: anybody may have written it."""
        try:
            return Shadowed(**{key: int(value) for key, value in json.loads(tag or "{}").items()})
        except (TypeError, ValueError, AttributeError, OverflowError):
            return None

    def told(self) -> str:
        """In words."""
        judged = self.wins + self.ties + self.losses + self.flips
        duels = f"; of {judged} judged it won {self.wins}, tied {self.ties + self.flips}, lost {self.losses}"
        copies = f"{self.copies} requests of version {self.against} copied, {self.same} answered the same"
        return copies + (f", {self.failed} not answered" if self.failed else "") + (duels if judged else "")
