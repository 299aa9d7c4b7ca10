"""What the MLflow deployments target `ray-serve` is made of; `mlflow_llamaduo.plugins.deployments` is its face.

settings      what -C may say
models        a model URI -> the version that is meant, and whether it is one of llamaduo's
target        the cluster that the target names; its Serve
applications  what is deployed there: made, watched, found again, deleted
pyfunc_app    any pyfunc as a Serve application, in MLflow's scoring protocol
chat_app      a version of llamaduo's as a Serve application, in OpenAI's chat API
asking        predict(): inputs -> request -> predictions
local         run_local(): a cluster of its own until Ctrl-C
"""
