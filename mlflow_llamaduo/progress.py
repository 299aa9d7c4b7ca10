"""What a person sees of work under way: a bar on a terminal, a line a minute in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

EVERY_S = 60.0


def bar(description: str, total: int, unit: str) -> "tqdm[Any]":
    """A progress bar on a terminal; nothing where the output goes to a file."""
    return tqdm(desc=description, total=total, unit=unit, file=sys.stderr, disable=None, leave=False)


class Watched:
    """A bar whose end says how the asking goes; where there is no terminal, a line now and then says it.

    Args:
        description: what is being done.
        total: units of it.
        unit: their name.
        line: how it goes, in one line.
        say: told that line every `EVERY_S` seconds where there is no bar.
    """

    def __init__(
        self, description: str, total: int, unit: str, *, line: Callable[[], str], say: Callable[[str], None]
    ) -> None:
        self._description = description
        self._bar = bar(description, total, unit)
        self._line = line
        self._say = say
        self._said = time.monotonic()
        self._done = 0

    def update(self, units: int) -> None:
        """So many units more are done."""
        self._done += units
        self._bar.update(units)

    def refresh(self) -> None:
        """Something has changed that the line tells."""
        if not self._bar.disable:
            self._bar.set_postfix_str(self._line(), refresh=False)
            self._bar.update(0)
        elif time.monotonic() - self._said > EVERY_S:
            self._said = time.monotonic()
            self._say(f"{self._description}: {self._done} of {self._bar.total}, {self._line()}")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


@contextmanager
def watched(
    description: str, total: int, unit: str, *, line: Callable[[], str], say: Callable[[str], None]
) -> Iterator[Watched]:
    """A `Watched` for the length of the block."""
    shown = Watched(description, total, unit, line=line, say=say)
    try:
        yield shown
    finally:
        shown.close()
