"""Where base models come from: a folder, the cache, the model hub, or a PyPI wheel."""

from mlflow_llamaduo.base_models.resolve import BaseModelFolder, resolve

__all__ = ["BaseModelFolder", "resolve"]
