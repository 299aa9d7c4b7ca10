"""Stage 2: pairs become an adapter."""

from mlflow_llamaduo.finetune.trainer import finetune, optimizer_steps

__all__ = ["finetune", "optimizer_steps"]
