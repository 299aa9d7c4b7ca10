"""Ray Serve: the champion behind the OpenAI chat API."""

from mlflow_llamaduo.serving.run import from_environment, serve

__all__ = ["from_environment", "serve"]
