"""One line of the table of benchmarks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A figure in seconds beside a peer's and the limit's, all of one run."""

    name: str
    seconds: float
    peer: str
    peer_seconds: float
    limit: str
    limit_seconds: float

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.seconds:.2f} s | {self.peer} {self.peer_seconds:.2f} s "
            f"| {self.seconds / self.peer_seconds:.2f} | {self.limit} {self.limit_seconds:.2f} s "
            f"| {self.seconds / self.limit_seconds:.1f} |"
        )
