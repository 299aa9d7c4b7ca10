"""Where the pairs of a version came from: what the run of its alignment was configured with."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.versions import GONE

PARENT = "mlflow.parentRunId"


@dataclass(frozen=True, slots=True)
class Origin:
    """Source of the coverage dataset, and rows of dev and test; empty where the run does not say so."""

    source: str = ""
    dev_rows: str = ""
    test_rows: str = ""


def origin_of(run_id: str) -> Origin:
    """Of a version's run: the round's, whose parent is the alignment. Nothing is known where a run is gone.

    Raises:
        MlflowException: MLflow cannot be read.
    """
    client = MlflowClient()
    try:
        run = client.get_run(run_id) if run_id else None
        if run is not None and PARENT in run.data.tags:
            run = client.get_run(run.data.tags[PARENT])
    except MlflowException as error:
        if error.error_code not in GONE:
            raise
        run = None
    if run is None:
        return Origin()
    return Origin(*(run.data.params.get(f"coverage.{name}", "") for name in ("source", "dev_rows", "test_rows")))
