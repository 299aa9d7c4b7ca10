"""Where coverage pairs come from, named in one text.

pairs.jsonl, folder/, pairs.parquet         files, in any of the shapes
hub:HuggingFaceH4/no_robots                 a dataset of the hub: hub:<name>[@<revision>][#<split>]
traces:my-service                           MLflow traces: traces:<experiment, by name or id>
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mlflow_llamaduo.coverage.formats import each_file_row, is_known
from mlflow_llamaduo.coverage.rows import Row
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.places import check_mlflow

HUB, TRACES = "hub:", "traces:"
_HUB = re.compile(r"(?P<name>[^@#]+)(?:@(?P<revision>[^#]+))?(?:#(?P<split>.+))?")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def resolved(source: str, folder: Path) -> str:
    """The source, a relative path taken from `folder`; a name like `owner/dataset` that is no file is the hub's."""
    if source.startswith((HUB, TRACES)):
        return source
    path = folder / source
    if not path.exists() and _HUB_NAME.fullmatch(source) and not is_known(path):
        return f"{HUB}{source}"
    return str(path)


def source_rows(source: str, *, trace_filter: str = "", feedback: str = "") -> Iterator[Row]:
    """The rows of a source, as `resolved` names it.

    Args:
        source: what is to be read.
        trace_filter: of traces, MLflow's filter.
        feedback: of traces, `name` or `name=value` of the feedback that says "satisfactory"; see `coverage.traces`.

    Raises:
        ConfigError: no MLflow server is where the environment says.
        DataError: the source cannot be had.
        StageError: MLflow cannot be read.
    """
    if source.startswith(TRACES):
        check_mlflow()
        from mlflow_llamaduo.coverage.traces import trace_rows

        name, _, value = feedback.partition("=")
        if name.rstrip().endswith(("<", ">")):
            raise DataError(f"coverage.feedback {feedback!r}: write {name.rstrip()[:-1]}={name.rstrip()[-1]}={value}")
        experiment = source.removeprefix(TRACES)
        return trace_rows(experiment, trace_filter=trace_filter, feedback=name.strip(), value=value.strip() or True)
    if source.startswith(HUB):
        from mlflow_llamaduo.coverage.hub import hub_rows

        found = _HUB.fullmatch(source.removeprefix(HUB))
        name, revision, split = found.group("name", "revision", "split") if found else (source, None, None)
        return hub_rows(str(name), revision=revision, split=split)
    return each_file_row(Path(source))
