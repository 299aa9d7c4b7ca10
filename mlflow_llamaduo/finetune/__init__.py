"""Stage 2: pairs become an adapter."""

from mlflow_llamaduo.finetune.trainer import TrainWorkers, optimizer_steps

__all__ = ["TrainWorkers", "optimizer_steps"]
