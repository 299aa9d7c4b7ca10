"""`llamaduo curate` as a user starts it, with the time and memory of all its processes."""

import os
import resource
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from subprocess import Popen
from typing import TypeVar

import psutil

T = TypeVar("T")
_SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds on the clock and of processors, and the most memory that all processes held at once, in GB."""

    wall_s: float
    cpu_s: float
    peak_gb: float


def curated(folder: Path, new: Path, train: Path | None, test: Path, *, name: str) -> Cost:
    """Run the command in `folder`; what it writes is `name`.kept.jsonl, .rejected.jsonl and .report.json there."""
    command = [str(Path(sysconfig.get_path("scripts")) / "llamaduo"), "curate", "--in", str(new), "--test", str(test)]
    command += ["--train", str(train)] if train else []
    for option, suffix in (("out", "kept.jsonl"), ("rejected", "rejected.jsonl"), ("report", "report.json")):
        command += [f"--{option}", str(folder / f"{name}.{suffix}")]
    return _measured(command, folder)


def _measured(command: Sequence[str], folder: Path) -> Cost:
    before, began = _cpu_s(), time.perf_counter()
    with Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=sys.stderr) as process:
        peak = _peak(psutil.Process(process.pid))
        code = process.wait()
    wall = time.perf_counter() - began
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}")
    return Cost(wall, _cpu_s() - before, peak / 1e9)


def _cpu_s() -> float:
    """Of all processes that were waited for, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(process: psutil.Process) -> int:
    """The most memory of a process and those that it started, until it ends; pages that they share count for each."""
    peak = 0
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            peak = max(peak, sum(each.memory_info().rss for each in (process, *process.children(recursive=True))))
        except psutil.NoSuchProcess:
            continue  # one of them has just ended
        time.sleep(_SAMPLE_S)
    return peak


def measured(function: Callable[..., T], *arguments: object) -> tuple[T, Cost]:
    """What a function returns in a new process of its own, and what it cost, start of Python included."""
    before, began = _cpu_s(), time.perf_counter()
    peaks: list[int] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pid = pool.submit(os.getpid).result()
        watch = threading.Thread(target=lambda: peaks.append(_peak(psutil.Process(pid))))
        watch.start()
        result = pool.submit(function, *arguments).result()
        wall = time.perf_counter() - began
    watch.join()
    return result, Cost(wall, _cpu_s() - before, max(peaks, default=0) / 1e9)
