"""What MLflow is told: one run an alignment, one nested run a round."""

from mlflow_llamaduo.tracking.once import reached
from mlflow_llamaduo.tracking.runs import OWN_RUN, Tracker, point_here

__all__ = ["OWN_RUN", "Tracker", "point_here", "reached"]
