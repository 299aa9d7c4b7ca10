"""What MLflow is told: one run an alignment, one nested run a round."""

from mlflow_llamaduo.tracking.runs import Tracker

__all__ = ["Tracker"]
