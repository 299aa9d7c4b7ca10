"""Whether the cluster has what the train workers want: Ray waits for ever without a word where it has not."""

import time
from collections.abc import Callable

import ray

from mlflow_llamaduo.config import FineTune

LOOK_S = 2.0


class Room:
    """Looks now and then, and tells once when nodes are missing and once when they are back.

    Args:
        recipe: of the workers, their CPUs and GPUs.
        say: told a line.
    """

    def __init__(self, recipe: FineTune, say: Callable[[str], None] = lambda _: None) -> None:
        self._wanted = {
            "CPU": recipe.workers * recipe.cpus_per_worker,
            "GPU": recipe.workers * recipe.gpus_per_worker,
        }
        self._say = say
        self._missing = False
        self._looked = float("-inf")

    def look(self) -> bool:
        """Whether the cluster's nodes have enough, busy or not; counted anew when that is cheap."""
        if time.monotonic() - self._looked < LOOK_S:
            return not self._missing
        self._looked = time.monotonic()
        has = ray.cluster_resources()
        found = {kind: has.get(kind, 0.0) for kind in self._wanted}
        short = [f"{n} {kind} (there are {found[kind]:g})" for kind, n in self._wanted.items() if found[kind] < n]
        if bool(short) != self._missing:
            self._missing = bool(short)
            self._say(_told(short))
        return not short


def _told(short: list[str]) -> str:
    if not short:
        return "the train workers have their nodes"
    return f"waiting for a node: the train workers want {', '.join(short)}; training goes on when one comes"
