"""Stage 5: seeds become new pairs, the clean ones are kept."""

from mlflow_llamaduo.synthesis.curate import curate
from mlflow_llamaduo.synthesis.grow import Order, grow
from mlflow_llamaduo.synthesis.seeds import failures

__all__ = ["Order", "curate", "failures", "grow"]
