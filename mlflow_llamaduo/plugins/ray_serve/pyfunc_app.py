"""Any pyfunc as a Serve application that speaks MLflow's scoring protocol, as `mlflow models serve` does.

Ray gets this module by value: replicas need mlflow, ray[serve] and what the model needs, but not this package. It is
not sent as a runtime environment's module either: Ray forgets such a package once nothing runs that uses it, and then
a single replica that has died could not be started again. So nothing here may name another module of the package.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray import cloudpickle, serve
from ray.serve import Application

JSON = "application/json"


class Pyfunc:
    """One loaded model. Loading unpickles what the model was saved with: it may run any code."""

    def __init__(self, uri: str) -> None:
        import mlflow

        self._model = mlflow.pyfunc.load_model(uri)
        self._schema = self._model.metadata.get_input_schema()

    async def __call__(self, http: Any) -> Any:
        """`POST /invocations`; `GET /ping`, `/health` (the model is loaded) and `/version` (MLflow's)."""
        import mlflow
        from starlette.responses import Response

        path = http.scope["path"].removeprefix(http.scope.get("root_path", "")).rstrip("/")
        match http.method, path:
            case "POST", "/invocations":
                body, kind = await http.body(), http.headers.get("content-type", JSON)
                text, status, mimetype = await asyncio.to_thread(self._score, body, kind)
                return Response(text, status, media_type=mimetype)
            case "GET", "/ping" | "/health":
                return Response("\n", media_type=JSON)
            case "GET", "/version":
                return Response(mlflow.__version__, media_type=JSON)
            case _, "/invocations" | "/ping" | "/health" | "/version":
                return Response(
                    '{"error_code": "BAD_REQUEST", "message": "method not allowed"}', 405, media_type=JSON
                )
        return Response('{"error_code": "ENDPOINT_NOT_FOUND", "message": "no such path"}', 404, media_type=JSON)

    def _score(self, body: bytes, kind: str) -> tuple[str, int, str]:
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc.scoring_server import invocations

        try:
            answer = invocations(body, kind, self._model, self._schema)
        except MlflowException as error:
            if trace := error.json_kwargs.pop("stack_trace", None):  # for the log, not for whoever asked
                logging.getLogger("ray.serve").warning("a prediction failed: %s", trace)
            return error.serialize_as_json(), error.get_http_status_code(), JSON
        return answer.response, answer.status, answer.mimetype


def application(uri: str, options: Mapping[str, Any]) -> Application:
    """The application for a model.

    Args:
        uri: what every replica loads, also one that is started later: a version, not an alias.
        options: Serve's, of its one deployment.
    """
    return serve.deployment(Pyfunc).options(**options).bind(uri)


@contextmanager
def by_value() -> Iterator[None]:
    """Within the block Ray pickles this module's class with its code, not its name."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
