"""What MLflow is told: one run an alignment, one nested run a round."""

from mlflow_llamaduo.tracking.runs import Tracker, point_here

__all__ = ["Tracker", "point_here"]
