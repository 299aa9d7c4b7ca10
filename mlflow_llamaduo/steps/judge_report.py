"""`llamaduo judge-report`: how good is the judge?

    verdict files, a run's traces, labels  ->  Opinions  ->  trust.measure  ->  Report, with the swaps in it

All but the swap is there already, and every row that cannot be read is told before anybody is asked.
"""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from mlflow_llamaduo.asking import Say
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.trust import Report, measure
from mlflow_llamaduo.coverage.rows import shown
from mlflow_llamaduo.errors import ConfigError, DataError
from mlflow_llamaduo.files import write_atomic
from mlflow_llamaduo.places import check_mlflow
from mlflow_llamaduo.steps.labels import Labels, read_labels
from mlflow_llamaduo.steps.opinions import Opinions
from mlflow_llamaduo.steps.swap import swaps
from mlflow_llamaduo.tracking.feedback import judged_responses

MOST_JUDGES = 12
"""More are no judges but a wrong column, and every two of them would be compared."""
EXAMPLES = 3
OTHER_SCALE = 10
"""Labels that all lie below are likely to be stars, or shares of 1."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where verdicts and labels are: files of `llamaduo judge`, the MLflow run of a round, a file of labels."""

    files: tuple[Path, ...]
    run_id: str | None = None
    labels: Path | None = None


def judge_report(
    project: Project,
    sources: Sources,
    thresholds: Sequence[float],
    swap: int,
    out: Path | None,
    say: Say,
    *,
    yes: bool,
) -> Report:
    """Measure the judges of some verdicts, and write the figures as JSON to `out`.

    Args:
        project: whose judges are asked for the swap, and by which prompt.
        sources: verdicts and labels.
        thresholds: scores at which answers are called good enough.
        swap: responses whose reference and response trade places; 0 asks nobody.
        out: where the figures are to be written too.
        say: told of progress.
        yes: go on though the swap is likely to be dear.

    Raises:
        ConfigError: there is nothing to report on, or the swap wants `--yes`.
        DataError: verdicts or labels cannot be used; every bad row of all files is told.
        StageError: MLflow cannot be read.
    """
    if not sources.files and not sources.run_id:
        raise ConfigError("no verdicts: name files of `llamaduo judge` with --in, or the run of a round with --run")
    opinions, notes = _gathered(sources, swap)
    thresholds = sorted(set(thresholds))
    people = {
        quantity: {key: fmean(labels) for key, labels in given.items()} for quantity, given in opinions.people.items()
    }
    report = replace(measure(opinions.judges, people, opinions.answers, thresholds), notes=tuple(notes))
    if swap:
        report = replace(report, swaps=swaps(project, report, opinions.sample, say, yes=yes))
    if out:
        write_atomic(out, json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        say(f"the figures are in {out}")
    return report


def _gathered(sources: Sources, sample: int) -> tuple[Opinions, list[str]]:
    """All that there is, and notes of what could not be used."""
    opinions, labels, problems = Opinions(sample), None, []
    for path, name in zip(sources.files, _names(sources.files), strict=True):
        try:
            opinions.add_file(path, name)
        except DataError as error:
            problems.append(str(error))
    try:
        labels = read_labels(sources.labels) if sources.labels else None
    except DataError as error:
        problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    notes = _add_run(opinions, sources.run_id) if sources.run_id else []
    if not opinions.judges:
        raise DataError("no verdict: no response has a judge's score")
    if len(opinions.judges) > MOST_JUDGES:
        raise DataError(
            f"{len(opinions.judges)} judges, such as {_examples(opinions.judges)}: the key judge of a row names who "
            f"judged it, and at most {MOST_JUDGES} are compared"
        )
    return opinions, notes + (_add_labels(opinions, labels) if labels else []) + _other_scale(opinions)


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names without suffix stand for their judges; whole paths where two would be the same."""
    stems = Counter(path.stem for path in files)
    return [path.stem if stems[path.stem] == 1 else str(path) for path in files]


def _add_run(opinions: Opinions, run_id: str) -> list[str]:
    check_mlflow()
    left_out: Counter[str] = Counter()
    for judged in judged_responses(run_id, lambda why: left_out.update([why])):
        try:
            opinions.add(judged)
        except ValueError:  # written again by a round that went on, or in a file with other answers
            left_out["a response whose id is another text's"] += 1
    return [f"left out of the run's traces: {count} times {why}" for why, count in left_out.items()]


def _add_labels(opinions: Opinions, labels: Labels) -> list[str]:
    notes = []
    ids = labels.ids
    if not any(key in opinions.answers for key in ids):
        known = _examples(sorted(opinions.answers))
        raise DataError(
            f"no label is of a response that was judged: their ids are {_examples(sorted(ids)) or 'none'}, those of "
            f"the responses {known}"
        )
    if strangers := [key for key in ids if key not in opinions.answers]:
        notes.append(f"{len(strangers)} of {len(ids)} labelled ids match no response: {_examples(sorted(strangers))}")
    if labels.blank:
        notes.append(f"empty rows in the file of labels: {labels.blank}")
    for quantity, by_id in labels.scores.items():
        for key in by_id.keys() & opinions.answers.keys():
            opinions.label(quantity, key, by_id[key])
    return notes


def _other_scale(opinions: Opinions) -> list[str]:
    notes = []
    for quantity, by_id in opinions.people.items():
        most = max((label for labels in by_id.values() for label in labels), default=100.0)
        if most <= OTHER_SCALE:
            notes.append(f"no label of {quantity} is above {most:g}: are they scores from 0 to 100?")
    return notes


def _examples(ids: Collection[str]) -> str:
    some = ", ".join(shown(key) for key in list(ids)[:EXAMPLES])
    return some + (", ..." if len(ids) > EXAMPLES else "")
