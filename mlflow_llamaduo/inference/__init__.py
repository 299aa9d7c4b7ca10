"""Stage 3: adapter and prompts become responses."""

from mlflow_llamaduo.inference.pool import EnginePool

__all__ = ["EnginePool"]
