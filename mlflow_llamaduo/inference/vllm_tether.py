"""VLLM's engine process ends with the process that started it, however that one ends.

vLLM's asynchronous engine computes in a child. A parent that is killed cannot end it, and an orphan keeps the whole
GPU: the replica that is started in its place finds no memory. So the child looks after its parent itself. What runs
there first is the executor that it is given, before the weights are loaded; of several GPUs the workers end with it.
"""

import multiprocessing
import os
import threading
import time
from typing import Any

from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

EVERY_S = 0.5


class OneGpu(UniProcExecutor):
    """Computes in the engine's process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _tether()
        super().__init__(*args, **kwargs)


class SeveralGpus(MultiprocExecutor):
    """Computes in a process for each GPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _tether()
        super().__init__(*args, **kwargs)


def _tether() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.pid,), name="llamaduo-tether", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:  # an orphan has another
        time.sleep(EVERY_S)
    os._exit(1)  # nobody is left who could ask for anything
