"""`serve run serve.app:app`: the champion of `$LLAMADUO_TASK` (closed_qa), as `llamaduo serve` builds it."""

from mlflow_llamaduo.serving.run import from_environment

app = from_environment()
