"""What is done already: a run that died goes on where it was and pays for nothing twice.

    .llamaduo/<task>/                    or $LLAMADUO_HOME/<task>/
        stages/<stage>/<digest>.json     a finished stage's value, found by the digest of its inputs
        stages/finetune/<digest>/        an adapter's files
        alignments/<fingerprint>.json    the loop's state after its last finished round, and MLflow run ids
        alignments/<fingerprint>.lock    held while a process works on it

Files appear whole or not at all. Stages are shared between alignments: another gate on the same data trains
nothing anew.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from mlflow_llamaduo.core.ledger import Planned
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.core.rounds import State, StopReason
from mlflow_llamaduo.files import locked, working_folder, write_atomic

T = TypeVar("T")

HOME = working_folder()
"""The working folder: below the current one, or where LLAMADUO_HOME says."""


@dataclass(frozen=True)
class Entry:
    """What the journal knows of one alignment."""

    state: State | None = None
    run_id: str | None = None
    round_run_ids: tuple[str, ...] = ()
    stop: StopReason | None = None
    planned: tuple[Planned, ...] = ()
    """What each stage was to take, as it was planned when it was first planned."""


class Journal:
    """The working folder of one alignment."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._file = folder / "alignments" / f"{fingerprint}.json"
        self.fingerprint = fingerprint
        self.stage_seconds = 0.0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the alignment for this process.

        Raises:
            StageError: another process works on it.
        """
        with locked(self._file.with_suffix(".lock"), "this alignment is being worked on"):
            yield

    def entry(self) -> Entry:
        """All that is known; an empty entry at first."""
        if not self._file.is_file():
            return Entry()
        return TypeAdapter(Entry).validate_json(self._file.read_bytes())

    def update(self, **changes: Any) -> None:
        """Replace fields of the entry."""
        known = self.entry()
        write_atomic(self._file, TypeAdapter(Entry).dump_json(replace(known, **changes)))

    def forget(self) -> None:
        """Begin this alignment anew; finished stages stay usable."""
        self._file.unlink(missing_ok=True)

    def once(self, stage: str, inputs: Any, kind: Any, make: Callable[[Path], T]) -> T:
        """The value of a stage: read if it was finished before, made and kept otherwise.

        Args:
            stage: its name.
            inputs: JSON values that decide the result.
            kind: the value's type, for reading it back.
            make: computes the value; given a path of its own for files beside the value.
        """
        place = self._folder / "stages" / stage / digest(inputs)
        record = place.with_suffix(".json")
        pair: TypeAdapter[tuple[float, T]] = TypeAdapter(tuple[float, kind])
        if record.is_file():
            seconds, value = pair.validate_json(record.read_bytes())
        else:
            began = time.monotonic()
            place.parent.mkdir(parents=True, exist_ok=True)
            value = make(place)
            seconds = time.monotonic() - began
            # Not `dump_json`: it writes a loss of NaN as null, and cannot read that back.
            write_atomic(record, json.dumps(pair.dump_python((seconds, value), mode="json")))
        self.stage_seconds += seconds
        return value

    def take_seconds(self) -> float:
        """Seconds that the stages since the last call have taken, in whichever life of the run."""
        seconds, self.stage_seconds = self.stage_seconds, 0.0
        return seconds
