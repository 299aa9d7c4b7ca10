"""How many tokens a day an experiment's traces have used: the load of a task that is in use."""

import time

from mlflow import MlflowClient

from mlflow_llamaduo.core.cost import Workload
from mlflow_llamaduo.errors import DataError

PAGE = 500
DAY_MS = 86_400_000


def used(experiment: str, days: int) -> tuple[Workload, int]:
    """The mean day of the last `days` days, and how many traces it is of.

    Args:
        experiment: its name.
        days: until now.

    Raises:
        DataError: there is no such experiment, or no trace of that time says its tokens.
        MlflowException: MLflow cannot be read.
    """
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise DataError(f"traces:{experiment}: MLflow has no experiment of that name")
    since = int(time.time() * 1000) - days * DAY_MS
    counted, read, written, token = 0, 0, 0, None
    while True:
        page = client.search_traces(
            locations=[found.experiment_id],
            filter_string=f"trace.timestamp_ms >= {since}",
            max_results=PAGE,
            page_token=token,
            include_spans=False,
        )
        for usage in (trace.info.token_usage for trace in page):
            if usage:
                counted += 1
                read += int(usage.get("input_tokens", 0))
                written += int(usage.get("output_tokens", 0))
        token = page.token
        if not token:
            break
    if not counted:
        raise DataError(
            f"traces:{experiment}: no trace of the last {days} days says how many tokens it used, as MLflow's "
            "autologging has it"
        )
    return Workload(read / days / 1e6, written / days / 1e6), counted
