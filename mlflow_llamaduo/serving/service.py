"""What a service is made of, before there is any of it: plain values, which Ray pickles."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow_llamaduo.config import Project, Serving
from mlflow_llamaduo.core.catalogue import Pick
from mlflow_llamaduo.serving.keys import Key
from mlflow_llamaduo.serving.shelf import Shelf


@dataclass(frozen=True)
class Service:
    """Registered models by task, where versions come from, and who may ask.

    `first` is a version whose base is the one that is served; `lora_rank` the highest rank of adapters to come.
    `projects` are those of the tasks, for whom a service LLM may be asked; an exported folder has none.
    """

    names: Mapping[str, str]
    shelf: Shelf
    first: Pick
    serving: Serving
    keys: tuple[Key, ...] = ()
    lora_rank: int = 16
    projects: Mapping[str, Project] = field(default_factory=dict)

    @property
    def shadowed(self) -> bool:
        """Whether some task has a shadow."""
        shadows = [project.serving.shadow for project in self.projects.values()]
        return self.shelf.live and any(shadow.percent or shadow.usd_per_day for shadow in shadows)

    @property
    def paying(self) -> dict[str, Project]:
        """The projects that have dollars for a service LLM."""
        return {
            task: project
            for task, project in self.projects.items()
            if project.serving.fallback.usd_per_day or project.serving.shadow.usd_per_day
        }
