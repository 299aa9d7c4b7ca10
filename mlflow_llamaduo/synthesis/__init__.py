"""Stage 5: seeds become new pairs, the clean ones are kept."""

from mlflow_llamaduo.synthesis.curate import curate
from mlflow_llamaduo.synthesis.generate import synthesize

__all__ = ["curate", "synthesize"]
