"""Ray Train's controller makes itself known, so that it can be ended while it waits for a node.

Ray Train 2.60 ends a run early on a SIGINT in the main thread, and in no other way; its callbacks run in the
controller, and are documented for such work (`ray.train.RunConfig`, `callbacks`).
"""

from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback


class Known(ControllerCallback):
    """Tells the line who controls the run."""

    def __init__(self, line: Any) -> None:
        self._line = line

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called in the controller before it looks for workers."""
        ray.get(self._line.controlled_by.remote([ray.get_runtime_context().current_actor]))
