"""Who made a mark in a file that several processes share, and does it live?"""

import os
import socket
import time
from functools import cache
from uuid import uuid4

import psutil

CLOCK_S = 60.0
"""A process's start is told by a clock that may be set; a number is not given again so soon."""
STALE_S = 86_400
"""Marks of a process on another machine, which cannot be asked whether it lives, count for a day."""


def owner() -> str:
    """A new owner in this process: machine, process, when it started, and a number of its own."""
    return f"{_process()} {uuid4().hex}"


def alive(owner: str, created: float) -> bool:
    """Whether the process of an owner lives; `created` is when it made its mark, in seconds since 1970."""
    host, pid, started, _ = owner.split(" ")
    if host != socket.gethostname():
        return time.time() - created < STALE_S
    try:
        process = psutil.Process(int(pid))
        same = bool(abs(process.create_time() - float(started)) < CLOCK_S)
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@cache
def _process() -> str:
    """This process, told from a later one with the same number."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"
