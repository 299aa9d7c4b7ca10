"""Stage 1: satisfactory pairs come in, are validated and split once."""

from mlflow_llamaduo.coverage.source import read_pairs
from mlflow_llamaduo.coverage.split import split

__all__ = ["read_pairs", "split"]
