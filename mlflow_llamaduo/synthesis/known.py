"""The rows that are there already, as far as curation needs them, kept on disk between rounds.

A round's new rows are compared with these arrays (about 200 bytes a row), not with the texts. They are written as
NumPy's own arrays and read without pickle.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mlflow_llamaduo.core.leaks import LeakIndex
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.tokens import Hashes, Numbers
from mlflow_llamaduo.files import writing_bytes_atomic
from mlflow_llamaduo.synthesis.sketch import Sketch, sketch

OUTGROWN = 2
"""When there are so many times as many rows as when the template was found out, it is found out anew."""
VERSION = 2


@dataclass(frozen=True)
class Known:
    """n rows: hashes of their exact texts and LSH bands; the template's words when there were `settled` rows.

    `runs` and `run_counts`: the runs of words of the held-out prompts, and in how many of the rows each is.
    """

    exact: Hashes
    bands: Hashes
    template: Hashes
    settled: int
    runs: Hashes
    run_counts: Numbers

    def __len__(self) -> int:
        return len(self.exact)

    @staticmethod
    def of(rows: Iterable[Pair], *, without: Hashes, leaks: LeakIndex) -> "Known":
        """What there is to know of some rows, read once."""
        return Known.sketched(sketch(rows, without=without, leaks=leaks), without=without, leaks=leaks)

    @staticmethod
    def sketched(rows: Sketch, *, without: Hashes, leaks: LeakIndex) -> "Known":
        """The same, of rows that have been read."""
        return Known(rows.exact, rows.bands, without, max(1, len(rows)), leaks.runs, leaks.counts(rows.hits))

    def outgrown(self, more: int) -> bool:
        """Whether with so many more rows the template must be found out anew."""
        return len(self) + more > OUTGROWN * self.settled

    def knows(self, leaks: LeakIndex) -> bool:
        """Whether the held-out prompts are those that were counted for."""
        return np.array_equal(self.runs, leaks.runs)

    def with_(self, rows: Sketch, which: Numbers, leaks: LeakIndex) -> "Known":
        """These rows, and then those of `rows` that `which` numbers; the held-out prompts are those it `knows`."""
        kept = np.isin(rows.hits.rows, which)
        hits = replace(rows.hits, rows=rows.hits.rows[kept], runs=rows.hits.runs[kept])
        return replace(
            self,
            exact=np.concatenate([self.exact, rows.exact[which]]),
            bands=np.concatenate([self.bands, rows.bands[which]]),
            run_counts=self.run_counts + leaks.counts(hits),
        )

    def save(self, path: Path, **more: Any) -> None:
        """Write it, whole or not at all; `more` are arrays or numbers to be found again beside it."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with writing_bytes_atomic(path) as stream:
            np.savez(stream, version=VERSION, **arrays, **more)


def load(path: Path) -> tuple[Known, dict[str, Any]] | None:
    """What `save` wrote, or None where there is nothing that this version can read."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, BadZipFile):  # not ours, or cut: it is made anew
        return None
    fields = Known.__dataclass_fields__
    if found.pop("version", None) != VERSION or not set(fields) <= set(found):
        return None
    arrays = {name: found.pop(name) for name in fields}
    return Known(**{**arrays, "settled": int(arrays["settled"])}), found
