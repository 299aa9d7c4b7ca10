"""An MLflow server that dies and comes back: what is begun is begun once, and what cannot be told is said in a line.

MLflow's client repeats a request whose answer is lost, and the server, which had done it, does it again: two runs.
A process that dies between the beginning of a run and noting its id would begin another one when it comes back.

How long the client tries is MLflow's own setting, and long enough: MLFLOW_HTTP_REQUEST_MAX_RETRIES is 7, after 0, 4,
8, 16, 32, 64 and 120 seconds, so a server may be away for 4 minutes in each request.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.core.text import without_login
from mlflow_llamaduo.errors import StageError

UNREACHED = "API request to "
"""How MLflow's client begins what it says of a server that gave no answer; its error code is that of any error."""


@contextmanager
def reached() -> Iterator[None]:
    """A server that stays away is no bug.

    Raises:
        StageError: MLflow's client has given up a request.
    """
    try:
        yield
    except MlflowException as error:
        if not error.message.startswith(UNREACHED):
            raise
        raise StageError(
            f"MLflow at {without_login(mlflow.get_tracking_uri())} gave no answer, however often it was asked: "
            "when it is back, the same command goes on, and nothing that is finished is done again"
        ) from error


def tagged(client: MlflowClient, experiment_id: str | None, tags: Mapping[str, str]) -> str | None:
    """The id of the first run of an experiment that has these tags."""
    found = _tagged(client, experiment_id, tags)
    return str(found[0].info.run_id) if found else None


def only(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> None:
    """Delete other runs of the same experiment with the same tags: no one has their ids."""
    for other in _tagged(client, run.info.experiment_id, tags):
        if other.info.run_id != run.info.run_id:
            client.delete_run(other.info.run_id)


def _tagged(client: MlflowClient, experiment_id: str | None, tags: Mapping[str, str]) -> list[Run]:
    if experiment_id is None:
        return []
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    return list(client.search_runs([experiment_id], wanted, order_by=["attributes.start_time"]))
