"""Configuration: `projects/<task>/duo.yaml`, a profile and overrides become one frozen tree.

    duo.yaml     what the task is: its coverage pairs, how they are split, the gate
    profile      what it runs on: base model, service LLM, recipe, limits
    overrides    what the user typed; they win

A key that is not known is an error, and all errors are told at once.
"""

from mlflow_llamaduo.config.coverage import Coverage
from mlflow_llamaduo.config.finetune import FineTune
from mlflow_llamaduo.config.gate import DEFAULT_GATE, Gate, rules_of
from mlflow_llamaduo.config.load import load, projects_folder
from mlflow_llamaduo.config.sections import (
    Baselines,
    Costs,
    Inference,
    Judging,
    Section,
    Stops,
    Synthesis,
    nearest,
)
from mlflow_llamaduo.config.service_models import ServiceLLMs, ServiceModel
from mlflow_llamaduo.config.serving import Canary, Fallback, Serving, Shadow
from mlflow_llamaduo.config.tree import FLEET, Project

__all__ = [
    "DEFAULT_GATE",
    "FLEET",
    "Baselines",
    "Canary",
    "Costs",
    "Coverage",
    "Fallback",
    "FineTune",
    "Gate",
    "Inference",
    "Judging",
    "Project",
    "Section",
    "ServiceLLMs",
    "ServiceModel",
    "Serving",
    "Shadow",
    "Stops",
    "Synthesis",
    "load",
    "nearest",
    "projects_folder",
    "rules_of",
]
