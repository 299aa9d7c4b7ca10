"""People's scores of responses out of a file: JSON lines or CSV with `id` and `similarity` or `precision`, or both.

A sheet for labelling is often handed back half filled in: a row whose cells are empty is a response that nobody has
looked at yet, and is counted. Several rows of one id are several people. Everything else that is no label is told.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_llamaduo.core.trust import QUANTITIES, Quantity
from mlflow_llamaduo.coverage.formats import each_file_row
from mlflow_llamaduo.coverage.rows import Unreadable, shown
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import SHOWN
from mlflow_llamaduo.service_llm.replies import points

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Labels:
    """Scores from 0 to 100 by quantity and response id, one a person; `blank` rows hold none."""

    scores: Mapping[Quantity, Mapping[str, list[float]]]
    blank: int

    @property
    def ids(self) -> set[str]:
        """The responses that somebody has labelled."""
        return {key for by_id in self.scores.values() for key in by_id}


def read_labels(path: Path) -> Labels:
    """The labels of a file.

    Raises:
        DataError: there is no such file, or rows are no labels: file, line and reason of every one.
    """
    if not path.is_file():
        raise DataError(f"no file {path}")
    if Path(path.name.lower().removesuffix(".gz")).suffix not in SUFFIXES:
        raise DataError(f"{path}: labels are JSON lines or CSV ({', '.join(SUFFIXES)})")
    scores: dict[Quantity, dict[str, list[float]]] = {quantity: defaultdict(list) for quantity in QUANTITIES}
    problems: list[str] = []
    blank = 0
    for row in each_file_row(path):
        try:
            key, given = _label(row.data)
        except ValueError as error:
            problems.append(f"{row.where}: {error}")
            continue
        blank += not given
        for quantity, value in given.items():
            scores[quantity][key].append(value)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([*problems[:SHOWN], *more]))
    return Labels({quantity: dict(by_id) for quantity, by_id in scores.items()}, blank)


def _label(data: Any) -> tuple[str, dict[Quantity, float]]:
    """The id of a row, and the scores that it has."""
    if isinstance(data, Unreadable):
        raise ValueError(data.detail)
    if not isinstance(data, dict):
        raise ValueError(f"a row is wanted, with id and {' or '.join(QUANTITIES)}, not {shown(data)}")
    row = {str(name).strip().lower(): value for name, value in data.items()}
    key = row.get("id")
    if isinstance(key, bool) or not isinstance(key, str | int) or not str(key).strip():
        raise ValueError("no id")
    if not any(quantity in row for quantity in QUANTITIES):
        raise ValueError(f"no {' and no '.join(QUANTITIES)}")
    given: dict[Quantity, float] = {}
    for quantity in QUANTITIES:
        value = row.get(quantity)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        score = points(value)
        if score is None:
            wrong = value if isinstance(value, int | float) else shown(value)
            raise ValueError(f"{quantity} is no number from 0 to 100: {str(wrong)[:60]}")
        given[quantity] = score
    return str(key).strip(), given
