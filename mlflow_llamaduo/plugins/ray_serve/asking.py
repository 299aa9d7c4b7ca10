"""predict(): what was given -> one HTTP request or several -> predictions.

Over HTTP and not through a handle of Serve: what is tried is what every other client gets, with the same parsing,
keys and limits; nothing is pickled; and a client that has found the deployment once needs no cluster any more.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import mlflow.deployments
import pandas as pd
from mlflow.environment_variables import MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT as TIMEOUT
from mlflow.exceptions import get_error_code
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc.scoring_server import SUPPORTED_FORMATS
from mlflow.pyfunc.utils.serving_data_parser import is_unified_llm_input
from mlflow.utils.proto_json_utils import NumpyEncoder, dump_input_data

from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.plugins.ray_serve.errors import DeploymentError, first_line

KEY = "LLAMADUO_API_KEY"
"""The environment variable with the key for a deployment that asks for one."""
AT_ONCE = 8
"""Prompts that are asked together: a replica answers several at once."""
WANTED = 'a prompt, a list of prompts, rows with a column "prompt" or "messages", or {"messages": [...]}'

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a deployment is asked; `model` is what a chat request calls it, empty for any other pyfunc."""

    url: str
    model: str


def ask(endpoint: Endpoint, inputs: Any) -> Any:
    """MLflow's `PredictionsResponse`.

    Args:
        endpoint: of the deployment.
        inputs: of a pyfunc a DataFrame, an array, a list, or a dict: named inputs, or a body of MLflow's scoring
            protocol. Of a llamaduo model see `WANTED`.

    Returns:
        For prompts and rows one answer each, greedy as the model's own `predict`; for one chat body the completion,
        with the answers' texts as its predictions.

    Raises:
        DataError: the inputs are of another shape.
        DeploymentError: the deployment does not answer, or refuses.
    """
    with httpx.Client(timeout=TIMEOUT.get(), trust_env=False) as client:
        if not endpoint.model:
            found = _post(client, f"{endpoint.url}/invocations", scoring_body(inputs))
            return _response(found if isinstance(found, dict) and "predictions" in found else {"predictions": found})
        url = f"{endpoint.url}/v1/chat/completions"
        bodies = chat_bodies(inputs)
        if isinstance(bodies, Mapping):
            completion = _post(client, url, json.dumps({"model": endpoint.model, **bodies}))
            return _response({**completion, "predictions": _texts(completion)})
        texts = [json.dumps({"model": endpoint.model, "temperature": 0, **body}) for body in bodies]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = threads.map(lambda text: _post(client, url, text), texts)
            return _response({"predictions": [_texts(answer)[0] for answer in answers]})


def scoring_body(inputs: Any) -> str:
    """A body of MLflow's scoring protocol, as JSON."""
    if not isinstance(inputs, dict):
        return str(dump_input_data(inputs if not isinstance(inputs, str) else [inputs]))
    whole = bool(SUPPORTED_FORMATS & inputs.keys()) or is_unified_llm_input(inputs)
    return json.dumps(inputs if whole else {"inputs": inputs}, cls=NumpyEncoder)


def chat_bodies(inputs: Any) -> Body | list[Body]:
    """One chat body as it was given, or one for each prompt or row.

    Raises:
        DataError: the inputs are no prompts and no conversations.
    """
    if isinstance(inputs, dict) and "messages" in inputs:
        return {**inputs, "messages": list(inputs["messages"])}
    if isinstance(inputs, dict) and "prompt" in inputs:
        inputs = [inputs["prompt"]] if isinstance(inputs["prompt"], str) else inputs["prompt"]
    if isinstance(inputs, str):
        inputs = [inputs]
    if isinstance(inputs, pd.DataFrame):
        return _rows(inputs)
    if isinstance(inputs, list) and all(isinstance(prompt, str) for prompt in inputs):
        return [_alone(prompt) for prompt in inputs]
    raise DataError(f"inputs of a llamaduo model are {WANTED}, not {type(inputs).__name__}")


def _rows(rows: pd.DataFrame) -> Body | list[Body]:
    """MLflow's command reads its file as a DataFrame: of one chat body every message is a row."""
    if "messages" not in rows.columns:
        if rows.columns.empty:
            raise DataError(f"inputs of a llamaduo model are {WANTED}: there is no column")
        column = "prompt" if "prompt" in rows.columns else rows.columns[0]
        return [_alone(str(prompt)) for prompt in rows[column]]
    cells = list(rows["messages"])
    if cells and all(isinstance(cell, dict) for cell in cells):
        first = rows.iloc[0].drop("messages").to_dict()
        return {**json.loads(json.dumps(first, cls=NumpyEncoder)), "messages": cells}
    return [{"messages": list(cell)} for cell in cells]


def _alone(prompt: str) -> Body:
    return {"messages": [{"role": "user", "content": prompt}]}


def _texts(completion: Mapping[str, Any]) -> Sequence[str]:
    return [choice["message"]["content"] for choice in completion["choices"]]


def _response(found: Mapping[str, Any]) -> Any:
    return mlflow.deployments.PredictionsResponse(found)


def _post(client: httpx.Client, url: str, body: str) -> Any:
    headers = {"content-type": "application/json"}
    if key := os.environ.get(KEY):
        headers["authorization"] = f"Bearer {key}"
    try:
        answer = client.post(url, content=body, headers=headers)
    except httpx.TimeoutException as error:
        raise DeploymentError(
            f"{url} did not answer within {TIMEOUT.get()} s: set {TIMEOUT.name} to more", DEADLINE_EXCEEDED
        ) from error
    except httpx.HTTPError as error:
        raise DeploymentError(
            f"{url} is not to be reached ({first_line(error)}): see mlflow deployments get, and ask from a machine "
            "that reaches Serve's HTTP host",
            TEMPORARILY_UNAVAILABLE,
        ) from error
    if answer.status_code == httpx.codes.OK:
        return answer.json()
    hint = f"; set {KEY} to an API key" if answer.status_code == httpx.codes.UNAUTHORIZED else ""
    code = get_error_code(answer.status_code)
    raise DeploymentError(f"{url} answered {answer.status_code}: {_said(answer)}{hint}", code)


def _said(answer: httpx.Response) -> str:
    """What an error says: MLflow's, OpenAI's, or Serve's own text; one line."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if isinstance(found, dict):
        inner = found.get("error")
        found = inner.get("message") if isinstance(inner, dict) else found.get("message")
    return " ".join(str(found or answer.text).split())[:400]
