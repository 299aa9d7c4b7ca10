"""Where a plan reckons a stage: a GPU that is known, several as one, or this machine; and for what price."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.config.sections import nearest
from mlflow_llamaduo.core.gpus import GPUS, Gpu, gpu
from mlflow_llamaduo.core.memory import VLLM_SHARE, Device
from mlflow_llamaduo.prices import book_of
from mlflow_llamaduo.service_llm.work import Machine

TRAINED_ON = ("A100-40G", "A100-80G")
SERVED_ON = "L4"


@dataclass(frozen=True, slots=True)
class Place:
    """A GPU, several as one, or this machine with its cores; `there` are the bytes that one worker may take."""

    name: str
    device: Device
    there: float
    gpu: Gpu | None = None

    @property
    def power(self) -> Gpu | int:
        """What computes: the GPU, or so many cores."""
        return self.gpu or (os.cpu_count() or 1)


def training_places(project: Project) -> list[Place]:
    """Where it is configured, and the A100s. A worker trains on one GPU, however many it holds."""
    recipe = project.finetune
    own = _place(recipe.gpus_per_worker, recipe.accelerator_type or TRAINED_ON[0], recipe.workers)
    others = [on(GPUS[name]) for name in TRAINED_ON]
    return [own, *(place for place in others if place.name != own.name)]


def answering_place(project: Project) -> Place:
    """Of one actor; vLLM takes a share of its GPUs' memory, and all of them, where transformers takes one."""
    settings = project.inference
    place = _place(settings.gpus, _answering_name(project), settings.actors)
    if settings.engine != "vllm" or place.gpu is None:
        return place
    all_ = place.gpu.times(settings.gpus)
    count = f"{settings.gpus} x " if settings.gpus > 1 else ""
    return Place(f"{count}{place.name}, vLLM", place.device, VLLM_SHARE * all_.memory, all_)


def serving_places(project: Project) -> list[Place]:
    """The configured GPU, by default an L4; before it this machine, where no GPU is configured."""
    known = gpu(project.serving.accelerator_type) or GPUS[SERVED_ON]
    there = [] if project.serving.gpus else [_place(0, "")]
    return [*there, on(known)]


def on(known: Gpu) -> Place:
    """One GPU of a kind."""
    return Place(known.name, "gpu" if known.bf16 else "gpu32", known.memory, known)


def training_machine(project: Project, place: Place | None = None) -> Machine:
    """All workers: each costs its configured price, else its GPUs' typical one; this machine costs nothing.

    Args:
        project: how many there are.
        place: one that is not as configured.

    Raises:
        ConfigError: the file of `costs.prices` is no price book.
    """
    recipe, place = project.finetune, place or training_places(project)[0]
    each = recipe.usd_per_hour or _typical(project, place) * max(1, recipe.gpus_per_worker)
    return Machine(f"{recipe.workers} x {place.name}", recipe.workers * each)


def answering_machine(project: Project) -> Machine:
    """All actors with all their GPUs; a GPU of the workers' kind costs what one of a worker's does.

    Raises:
        ConfigError: as `training_machine`.
    """
    recipe, settings = project.finetune, project.inference
    place = _place(settings.gpus, _answering_name(project))
    price = _typical(project, place)
    if recipe.usd_per_hour and training_places(project)[0].name == place.name:
        price = recipe.usd_per_hour / max(1, recipe.gpus_per_worker)
    count = settings.actors * max(1, settings.gpus)
    return Machine(f"{count} x {place.name}", count * price)


def _typical(project: Project, place: Place) -> float:
    """Dollars an hour of one GPU, by the price book."""
    return book_of(project.costs).gpus[place.gpu.name].usd_per_hour if place.gpu else 0.0


def remarks(project: Project) -> Iterator[str]:
    """Lines on what is not as it was configured: a GPU that is not known, and GPUs that nothing computes on."""
    recipe, settings, serving = project.finetune, project.inference, project.serving
    trained = (recipe.accelerator_type if recipe.gpus_per_worker else "", TRAINED_ON[0])
    for key, (name, instead) in {
        "finetune": trained,
        "inference": (settings.accelerator_type if settings.gpus else "", TRAINED_ON[0]),
        "serving": (serving.accelerator_type, SERVED_ON),
    }.items():
        if name and not gpu(name):
            yield (
                f"{key}.accelerator_type: {name} is not known here{nearest(name, GPUS)}: reckoned for {instead}; "
                f"known: {', '.join(GPUS)}"
            )
    if recipe.gpus_per_worker > 1:
        yield (
            f"finetune.gpus_per_worker: a worker trains on one GPU, and pays for {recipe.gpus_per_worker}: take "
            f"--set finetune.gpus_per_worker=1 --set finetune.workers={recipe.workers * recipe.gpus_per_worker}"
        )
    if settings.gpus > 1 and settings.engine == "transformers":
        yield (
            f"inference.gpus: the engine transformers answers on one GPU, and pays for {settings.gpus}: take --set "
            f"inference.gpus=1 --set inference.actors={settings.actors * settings.gpus}, or inference.engine=vllm"
        )


def _answering_name(project: Project) -> str:
    return project.inference.accelerator_type or project.finetune.accelerator_type or TRAINED_ON[0]


def _place(gpus: int, name: str, workers: int = 1) -> Place:
    """The GPU of that name; one that is not known is taken for the smaller A100. No GPU: a share of this machine."""
    if gpus:
        return on(gpu(name) or GPUS[TRAINED_ON[0]])
    return Place("this machine", "cpu", psutil.virtual_memory().total / workers)
