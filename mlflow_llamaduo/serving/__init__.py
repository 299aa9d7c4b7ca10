"""Ray Serve: the champion behind the OpenAI chat API."""

from mlflow_llamaduo.serving.app import application
from mlflow_llamaduo.serving.run import serve

__all__ = ["application", "serve"]
