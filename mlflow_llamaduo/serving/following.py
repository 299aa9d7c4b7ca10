"""What a running service goes by: the registry as it is, looked at every few seconds.

A new champion is loaded before any request is sent to it; one that cannot be loaded is not served, and the one before
it stays. Each request is answered by the version that was current when it came. While MLflow is away, what was seen
last holds.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from mlflow_llamaduo.core.catalogue import CHAMPION, Catalogue, Model, Pick
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.serving.shelf import Shelf

AGAIN_AFTER_S = 60.0
"""A champion that could not be loaded is tried again after so long."""
log = logging.getLogger("ray.serve")


class Following:
    """The catalogue of one ingress, and the thread that keeps it.

    Args:
        shelf: where the registry is seen.
        names: registered models by task.
        every_s: seconds between two looks.
        load: has a replica load a version; what went wrong, or None.
        clock: seconds.

    Raises:
        DataError: neither the registry nor the cache knows the models.
    """

    def __init__(
        self,
        shelf: Shelf,
        names: Mapping[str, str],
        every_s: float,
        load: Callable[[Pick], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf = shelf
        self._names = names
        self._every_s = every_s
        self._load = load
        self._clock = clock
        self._failed: dict[Pick, tuple[float, str]] = {}
        self._served: dict[str, Pick] = {}
        self._catalogue, self.away = shelf.seen(names)
        self.behind: dict[str, str] = {}
        self.broken: BaseException | None = None

    @property
    def catalogue(self) -> Catalogue:
        """What there is to be asked for now; champions are those that are loaded."""
        return self._catalogue

    @property
    def ready(self) -> bool:
        """Whether every task that has a champion is served by it, or by the one before."""
        wanted = {task for task, model in self._catalogue.models.items() if model.pick(CHAMPION)}
        return wanted <= self._served.keys()

    def start(self) -> None:
        """Follow from now on, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="llamaduo-following", daemon=True).start()

    def turn(self, seen: Catalogue) -> None:
        """Go by what was seen, as far as it can be loaded."""
        self._catalogue = Catalogue({task: self._followed(task, model) for task, model in seen.models.items()})

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # a bug: the ingress is not healthy without
            self.broken = error
            raise

    def _follow(self) -> None:
        self.turn(self._catalogue)
        while self._shelf.live or not self.ready:
            time.sleep(self._every_s)
            try:
                seen, away = self._shelf.seen(self._names)
            except DataError as error:
                seen, away = None, str(error)
            if away != self.away:
                log.warning("llamaduo: %s", f"MLflow is away: {away}" if away else "MLflow is back")
                self.away = away
            if seen is not None:
                self.turn(seen)

    def _followed(self, task: str, model: Model) -> Model:
        """A model as it was seen, but with the champion that can be served."""
        new, old = model.pick(CHAMPION), self._served.get(task)
        problem = self._problem(new) if new != old else None
        if problem is None and new is not None:
            if old is not None and new != old:
                log.warning("llamaduo: %s is version %s now, and was %s", task, new.number, old.number)
            self._served[task] = new
            self.behind.pop(task, None)
            return model
        if problem is not None and self.behind.get(task) != problem:
            log.error("llamaduo: %s stays as it is: %s", task, problem)
        if problem is not None:
            self.behind[task] = problem
        return model.with_alias(CHAMPION, old) if old is not None else model

    def _problem(self, new: Pick | None) -> str | None:
        """Why a champion cannot be served, or None where it is loaded."""
        if new is None:
            return "no version has the alias champion"
        tried, why = self._failed.get(new, (-AGAIN_AFTER_S, ""))
        if self._clock() - tried < AGAIN_AFTER_S:
            return why
        problem = self._load(new)
        if problem is None:
            self._failed.pop(new, None)
        else:
            self._failed[new] = (self._clock(), problem)
        return problem
