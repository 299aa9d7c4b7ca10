"""`serve run serve.app:app`: champions behind the OpenAI chat API; `args` in a configuration file says whose."""

from ray.serve import Application

from mlflow_llamaduo.serving.run import ServeArgs, from_args


def app(args: ServeArgs) -> Application:
    """Builds the application where Ray Serve deploys it."""
    return from_args(args)
