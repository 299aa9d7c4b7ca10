"""Configuration: `projects/<task>/duo.yaml`, a profile and overrides become one frozen tree.

    duo.yaml     what the task is: its coverage pairs, how they are split, the gate
    profile      what it runs on: base model, service LLM, recipe, limits
    overrides    what the user typed; they win

A key that is not known is an error, and all errors are told at once.
"""

from mlflow_llamaduo.config.load import load, projects_folder
from mlflow_llamaduo.config.sections import (
    Costs,
    Coverage,
    FineTune,
    Inference,
    Judging,
    Section,
    ServiceLLMs,
    ServiceModel,
    Serving,
    Stops,
    Synthesis,
    nearest,
)
from mlflow_llamaduo.config.tree import Project

__all__ = [
    "Costs",
    "Coverage",
    "FineTune",
    "Inference",
    "Judging",
    "Project",
    "Section",
    "ServiceLLMs",
    "ServiceModel",
    "Serving",
    "Stops",
    "Synthesis",
    "load",
    "nearest",
    "projects_folder",
]
