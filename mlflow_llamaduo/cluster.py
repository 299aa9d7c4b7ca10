"""The Ray cluster that a run works on: the one RAY_ADDRESS names, else a small one of its own."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

WORKER_ENVIRONMENT = {
    # Hub look-ups are over when workers start: base models are folders by then.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


@contextmanager
def cluster() -> Iterator[None]:
    """Connect for the length of the block; a cluster that was started here ends with it."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "120")
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))}
    ray.init(
        include_dashboard=False,
        log_to_driver=False,  # workers' errors come back as exceptions; their chatter stays in Ray's log folder
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {**WORKER_ENVIRONMENT, **threads}},
    )
    try:
        yield
    finally:
        ray.shutdown()
