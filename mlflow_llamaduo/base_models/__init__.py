"""Where base models come from: a folder, the cache, the model hub, or a PyPI wheel."""

from mlflow_llamaduo.base_models.resolve import BaseModelFolder, at_hand, resolve

__all__ = ["BaseModelFolder", "at_hand", "resolve"]
