"""The shape of a base model without its weights: config.json alone, from wherever it can be had.

In this order: a local folder of that name, the cache, the sizes in shapes.yaml, and the model hub, which is asked for
one small file and given five seconds. What the hub gave is kept, so that the next plan does not ask again.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mlflow_llamaduo.base_models.hub import HUB_TIMEOUT_S, on_the_hub
from mlflow_llamaduo.base_models.resolve import cache_folder
from mlflow_llamaduo.core.shape import Shape, shape_of
from mlflow_llamaduo.errors import BaseModelError

CONFIG = "config.json"


def find_shape(name: str) -> Shape:
    """The shape of a base model, by the same name as `resolve` takes.

    Raises:
        BaseModelError: its config.json is nowhere, or is of a family that is not known here.
    """
    cached = cache_folder() / "base_models" / name.replace("/", "--")
    kept = cache_folder() / "configs" / f"{name.replace('/', '--')}.json"
    for file in (Path(name) / CONFIG, cached / CONFIG, kept):
        if file.is_file():
            return shape_of(name, _read(file))
    if Path(name).is_dir():
        raise BaseModelError(f"{Path(name).absolute()} is no base model: it has no {CONFIG}")
    if name in known_shapes():
        return shape_of(name, known_shapes()[name])
    config = _read(_from_hub(name))
    shape = shape_of(name, config)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(config))
    return shape


@cache
def known_shapes() -> Mapping[str, Mapping[str, Any]]:
    """The sizes that are known without a network, by base model."""
    known: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("shapes.yaml").read_text())
    return known


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseModelError(f"{file.absolute()} is not readable as JSON: {error}") from error
    if not isinstance(config, dict):
        raise BaseModelError(f"{file.absolute()} holds no sizes of a model")
    return config


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    with on_the_hub(name, f"{CONFIG} of {name} is not here and not on the model hub"):
        return Path(hf_hub_download(name, CONFIG, etag_timeout=HUB_TIMEOUT_S))
