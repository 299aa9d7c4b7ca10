"""Which version answers: the one that is named, the task's champion, or the canary for some of those who ask."""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

from mlflow_llamaduo.config import Canary
from mlflow_llamaduo.core.catalogue import CHAMPION, Catalogue, Model, Pick


@dataclass(frozen=True, slots=True)
class Route:
    """A task's model and the version that answers; `how` it was chosen."""

    model: Model
    pick: Pick
    how: Literal["named", "champion", "canary"]

    @property
    def name(self) -> str:
        """The version's name, as it may be asked for again."""
        return f"{self.model.task}@{self.pick.number}"


def route(catalogue: Catalogue, asked: str, who: str, canary: Canary | None) -> Route | None:
    """The version that answers, or None where there is no such model.

    Args:
        catalogue: what there is.
        asked: `model` of the request; only a task alone may become the canary's.
        who: who asks; empty where that is not known.
        canary: the task's, if there is one.
    """
    found = catalogue.find(asked)
    if found is None:
        return None
    model, pick = found
    if asked != model.task:
        return Route(model, pick, "named")
    other = model.pick(canary.to) if canary is not None and canary.percent else None
    if canary is None or other is None or other == pick or place(other.key, who) >= canary.percent / 100:
        return Route(model, pick, "champion")
    return Route(model, other, "canary")


def champion_of(route: Route) -> Route:
    """The champion in the place of a canary that cannot answer."""
    pick = route.model.pick(CHAMPION)
    return Route(route.model, pick, "champion") if pick else route


def place(of: str, who: str) -> float:
    """Where somebody stands in a line from 0 to 1, the same one every time; anywhere, if it is not known who."""
    if not who:
        return random.random()  # noqa: S311 - nobody's secret
    return int.from_bytes(hashlib.sha256(f"{of}\n{who}".encode("utf-8", "replace")).digest()[:8]) / 2**64
