"""The metrics of MLflow's runs, of the table in the code, and those of a service, of the meters themselves."""

from collections.abc import Iterator

from mlflow_llamaduo.core.metric_names import METRICS
from mlflow_llamaduo.serving.meters import Meters
from tools.reference.page import code, prose, table

RUNS = {"both": "both", "parent": "parent, step 0", "round": "round, step = epoch"}


def blocks() -> dict[str, str]:
    """A table for runs, one for services."""
    ours = ((code(*each.names), each.unit, RUNS[each.runs], prose(each.meaning)) for each in METRICS)
    return {
        "metrics of runs": table(("metric", "unit", "run", "what it is"), ours),
        "metrics of a service": table(("metric", "kind", "labels", "what it is"), served()),
    }


def served() -> Iterator[tuple[str, ...]]:
    """What an ingress counts."""
    for meter in vars(Meters()).values():
        if hasattr(meter, "describe") and hasattr(meter, "_labelnames"):
            (about,) = meter.describe()
            name = f"{about.name}_total" if about.type == "counter" else about.name
            yield code(name), about.type, ", ".join(meter._labelnames), prose(about.documentation)
