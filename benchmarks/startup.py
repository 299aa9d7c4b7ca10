"""How long a user waits for `--help`: ours, MLflow's own, and an interpreter that does nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.row import Row, of_turns

REPEATS = 7


def measure() -> Iterator[Row]:
    """Medians of `REPEATS` starts, taken in turns so that a busy moment hits all alike."""
    commands = {
        "ours": ["-m", "mlflow_llamaduo", "--help"],
        "plugin": ["-c", "import mlflow_llamaduo"],
        "mlflow": ["-m", "mlflow", "--help"],
        "nothing": ["-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            seconds[name].append(_timed(command))
    peer, limit = ("`mlflow --help`", seconds["mlflow"]), ("bare Python", seconds["nothing"])
    yield of_turns("`llamaduo --help`", "s", seconds["ours"], peer, limit)
    yield of_turns("`import mlflow_llamaduo`", "s", seconds["plugin"], peer, limit)


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - began
