"""What `llamaduo plan` says of memory: a line for each stage and place, and one for each way out."""

from collections.abc import Iterator

from mlflow_llamaduo.base_models.shape import find_shape
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.memory import Memory
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.errors import BaseModelError
from mlflow_llamaduo.fit import Fit, fits
from mlflow_llamaduo.fit_places import remarks
from mlflow_llamaduo.preflight import check_base

GB = 1e9
HEADS = ("weights", "adapter", "optim.", "activ.", "logits", "cache", "rest", "total", "there")


def fit_lines(project: Project, parts: Split) -> Iterator[str]:
    """The table, GB of 10^9 bytes; a single line where the base model's sizes cannot be had.

    Raises:
        ConfigError: the cache of base models, where their sizes are kept, cannot be written.
    """
    check_base(project)
    try:
        shape = find_shape(project.base_model)
    except BaseModelError as error:
        yield f"does it fit? not known: {error}"
        return
    found = fits(project, parts, shape)
    yield f"does it fit? {project.base_model}: {shape.parameters / GB:.3f} billion parameters; GB, estimated"
    width = max(len(f"{fit.stage}: {fit.place.name}") for fit in found)
    yield f"  {'':<{width}} " + " ".join(f"{head:>7}" for head in HEADS) + "  fits           minutes  dollars  for"
    for fit in found:
        yield (
            f"  {f'{fit.stage}: {fit.place.name}':<{width}} {_parts(fit.memory)} {fit.place.there / GB:>7.2f}  "
            f"{_said(fit):<14} {_number(fit.minutes, 1):>7} {_number(fit.usd, 2):>8}  {fit.at}"
        )
    for fit in found:
        if not fit.fits:
            yield f"  {fit.stage} does not fit on {fit.place.name}: {fit.remedy}"
    yield from (f"  {remark}" for remark in remarks(project))


def _parts(memory: Memory) -> str:
    values = (
        memory.weights,
        memory.adapter,
        memory.optimizer,
        memory.activations,
        memory.logits,
        memory.cache,
        memory.rest,
        memory.total,
    )
    return " ".join(f"{value / GB:>7.2f}" for value in values)


def _said(fit: Fit) -> str:
    if not fit.fits:
        return "no"
    return "yes" if fit.longest is None else f"to {fit.longest} a row"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
