"""Stage 4: responses become verdicts."""

from mlflow_llamaduo.judging.judge import judge

__all__ = ["judge"]
