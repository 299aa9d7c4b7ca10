"""A dataset of the hub -> rows with their places.

The `datasets` library fetches it once and keeps it in its cache, so a second run needs no network. Code of a dataset
is never run: the library reads data files only. Columns that no shape knows (images, sounds) are not decoded.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_llamaduo.coverage.rows import Row
from mlflow_llamaduo.coverage.shapes import FIELDS
from mlflow_llamaduo.coverage.tables import BATCH_ROWS, batch_rows
from mlflow_llamaduo.errors import DataError

FIX = (
    "check its name, split, revision and config, the network (HF_ENDPOINT names a mirror), and HF_TOKEN where access "
    "is granted by name; or give the rows as a file"
)


def hub_rows(
    name: str, *, revision: str | None = None, split: str | None = None, config: str | None = None
) -> Iterator[Row]:
    """Rows of a dataset of the hub, each with the place `name split row 7`.

    Args:
        name: `HuggingFaceH4/no_robots`, or a local folder in the hub's layout.
        revision: a commit, branch or tag; unset, what `main` is today.
        split: unset, `train` if there is one, else all splits one after another.
        config: which of several configurations (subsets) the dataset has.

    Raises:
        DataError: the dataset could not be had, with the library's reason and what may help.
    """
    for part, dataset in _parts(name, revision=revision, split=split, config=config).items():
        columns = dataset.column_names
        known = [column for column in columns if column in FIELDS] or columns[:1]
        labels = getattr(dataset.features.get("category"), "names", None)
        number = 0
        for table in dataset.select_columns(known).with_format("arrow").iter(BATCH_ROWS):
            for data in batch_rows(table):
                number += 1
                yield Row(f"{name} {part} row {number}", _labelled(data, labels))


def _parts(name: str, *, revision: str | None, split: str | None, config: str | None) -> Mapping[str, Any]:
    from datasets import DatasetDict, load_dataset
    from datasets.exceptions import DatasetsError
    from httpx import HTTPError

    folder = Path(name).absolute()
    if not name or (
        "/" not in name and not folder.is_dir()
    ):  # the library takes `json` for "every JSON file around here"
        raise DataError(f"{name!r} names no dataset: write owner/name, or a folder")
    try:
        loaded = load_dataset(str(folder) if folder.is_dir() else name, config, revision=revision, split=split)
    except (DatasetsError, HTTPError, OSError, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error  # "An error occurred while generating the dataset" says nothing
        reason = " ".join(str(cause).split())[:240]
        raise DataError(f"dataset {name} could not be read ({type(cause).__name__}: {reason}): {FIX}") from error
    if not isinstance(loaded, DatasetDict):
        return {split or "train": loaded}
    return {"train": loaded["train"]} if "train" in loaded else loaded


def _labelled(data: Any, labels: list[str] | None) -> Any:
    """A category that the dataset keeps as a number, by its name."""
    if labels and isinstance(data, dict) and isinstance(number := data.get("category"), int):
        return {**data, "category": labels[number] if 0 <= number < len(labels) else None}
    return data
