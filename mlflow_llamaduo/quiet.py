"""Libraries' chatter is not the user's business; their errors are."""

import logging
import os
import warnings

CHATTY = ("accelerate", "alembic", "bitsandbytes", "datasets", "peft", "ray", "trl")
CHATTY_MLFLOW = (
    "mlflow.tracing.export.async_export_queue",
    "mlflow.store.db.utils",
    "mlflow.tracking.fluent",
    "mlflow.utils.requirements_utils",
)


def hush() -> None:
    """Keep the model libraries and MLflow's set-up steps to errors; call it before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    warnings.filterwarnings("ignore", module=r"(transformers|peft|trl|bitsandbytes|torch|datasets)\b")
    # Local paths match two of MLflow's source types; an input example would load the model just to log it.
    warnings.filterwarnings("ignore", message=".*dataset source can be interpreted in multiple ways")
    warnings.filterwarnings("ignore", message=".*input example was not provided")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in CHATTY_MLFLOW:
        logging.getLogger(name).setLevel(logging.WARNING)
