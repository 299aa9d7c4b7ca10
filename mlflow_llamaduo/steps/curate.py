"""`llamaduo curate`: the new rows of a file that are new and clean, beside a train and a test file of any size.

What is known of the train file is kept in `.llamaduo/curation/`: the next round reads only what was added to it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlflow_llamaduo.core.leaks import COMMON_MOST, COMMON_ROWS, COMMON_SHARE, GRAM, SHARE, LeakIndex
from mlflow_llamaduo.core.likeness import NEAR
from mlflow_llamaduo.core.minhash import BANDS, PERMUTATIONS, ROWS
from mlflow_llamaduo.core.records import Pair, PairSet
from mlflow_llamaduo.coverage import read_pairs
from mlflow_llamaduo.coverage.rows import Unreadable
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.files import to_jsonl, write_atomic, writing_bytes_atomic
from mlflow_llamaduo.steps.lines import Lines, Rows, read
from mlflow_llamaduo.steps.train_index import Train
from mlflow_llamaduo.synthesis.curate import Finding, findings
from mlflow_llamaduo.synthesis.known import Known
from mlflow_llamaduo.synthesis.sketch import SAMPLE, sketch, template

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one curation."""

    new: Path
    train: Path | None
    test: Path | None
    out: Path
    rejected: Path
    report: Path | None


def curate_files(paths: Paths, home: Path, say: Say) -> dict[str, Any]:
    """Part the rows of `paths.new` into `paths.out`, line by line as they were, and `paths.rejected`.

    Args:
        paths: what is read, and what is written.
        home: where the index of the train file is kept.
        say: told what came of it.

    Returns:
        The report: counts by reason, what of the train file gives test prompts away, and the settings.

    Raises:
        ConfigError: a file is to be read and written.
        DataError: a file is not there, or a test row is no pair.
    """
    _distinct(paths)
    test = read_pairs(paths.test) if paths.test else PairSet(())
    leaks = LeakIndex([pair.instruction for pair in test])
    new = Lines.of(paths.new)
    train = Train.of(paths.train, new, test, leaks, home) if paths.train else None
    known = train.known if train else Known.of([], without=template(new.sample(SAMPLE)), leaks=leaks)
    rows = read(new, 0, without=known.template, prompts=[pair.instruction for pair in test])
    tests = sketch(test, without=known.template, leaks=leaks)

    @lru_cache(maxsize=4096)
    def pair_at(number: int) -> Pair:
        if number < len(test):
            return test.pairs[number]
        number -= len(test)
        if train and number < len(known):
            return train.lines.pair(int(train.places[number]))
        return new.pair(int(rows.lines[number - len(known)]))

    found = findings(rows.sketch, known, tests, leaks, pair_at)

    def partner(why: Finding) -> str:
        if why.of_test:
            return f"{paths.test}:test pair {test.pairs[why.partner].id}"
        if train and why.partner < len(known):
            return f"{paths.train}:{train.places[why.partner] + 1}"
        return f"{paths.new}:{rows.lines[why.partner - len(known)] + 1}"

    counts = _write(paths, new, rows, {int(rows.lines[row]): why for row, why in found.items()}, partner)
    report = _report(paths, rows, counts, known, train, test)
    if paths.report:
        write_atomic(paths.report, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return _told(report, say)


def _write(
    paths: Paths, lines: Lines, rows: Rows, found: dict[int, Finding], partner: Callable[[Finding], str]
) -> Counter[str]:
    """Every line goes to one of the two files; what was no row at all goes to neither."""
    counts: Counter[str] = Counter()
    good = set(rows.lines.tolist())
    with (
        writing_bytes_atomic(paths.out) as kept,
        writing_bytes_atomic(paths.rejected) as rejected,
        paths.new.open("rb") as stream,
    ):
        for number, line in enumerate(stream):
            where = f"{paths.new}:{number + 1}"
            if number in found:
                why = found[number]
                row = {"where": where, **_why(why), "partner": partner(why), "row": json.loads(line)}
            elif number in good:
                counts["kept"] += 1
                kept.write(line if line.endswith(b"\n") else line + b"\n")
                continue
            elif number in rows.bad:
                row = {"where": where, **_bad(rows.bad[number])}
            else:
                continue
            counts[str(row["reason"])] += 1
            rejected.write(to_jsonl([row]).encode("utf-8", "replace"))
    return counts


def _why(why: Finding) -> dict[str, Any]:
    return {"reason": why.reason, **({"share": round(why.share, 3)} if why.of_test else {})}


def _bad(bad: Unreadable) -> dict[str, Any]:
    return {"reason": bad.reason, "detail": bad.detail}


def _report(
    paths: Paths, rows: Rows, counts: Counter[str], known: Known, train: Train | None, test: PairSet
) -> dict[str, Any]:
    reasons = {reason: count for reason, count in sorted(counts.items()) if reason != "kept"}
    return {
        "files": {name: str(path) for name, path in _given(paths)},
        "rows": counts.total(),
        "kept": counts["kept"],
        "rejected": reasons,
        "train": {
            "rows": len(known) if train else 0,
            "read_now": train.read if train else 0,
            "unreadable": train.unreadable if train else 0,
            "leaks": [
                {
                    "where": f"{paths.train}:{train.places[row] + 1}",
                    "test": test.pairs[prompt].id,
                    "share": round(share, 3),
                }
                for row, (prompt, share) in sorted(train.leaking.items())
            ]
            if train
            else [],
        },
        "test": {"rows": len(test)},
        "template_words": len(known.template),
        "settings": {
            "permutations": 2 * PERMUTATIONS,
            "bands": BANDS,
            "rows_per_band": ROWS,
            "rouge_l_f1_above": NEAR,
            "shared_words_of_a_prompt": SHARE,
            "in_runs_of_words": GRAM,
            "template_runs_in_rows_above": {"share": COMMON_SHARE, "least": COMMON_ROWS, "most": COMMON_MOST},
        },
    }


def _given(paths: Paths) -> Iterator[tuple[str, Path]]:
    """Name and path of the files that there are."""
    return ((name, path) for name, path in asdict(paths).items() if path is not None)


def _told(report: dict[str, Any], say: Say) -> dict[str, Any]:
    reasons = ", ".join(f"{count} {reason}" for reason, count in report["rejected"].items()) or "none"
    say(f"{report['kept']} of {report['rows']} rows kept in {report['files']['out']}; rejected: {reasons}")
    if leaks := report["train"]["leaks"]:
        say(
            f"{len(leaks)} of {report['train']['rows']} train rows give a test prompt away, such as "
            f"{leaks[0]['where']}: take them out, or the gate measures memory (all: train.leaks in the report)"
        )
    if unreadable := report["train"]["unreadable"]:
        say(f"{unreadable} lines of the train file are no pairs and were passed over")
    return report


def _distinct(paths: Paths) -> None:
    named = [(name.replace("new", "in"), path) for name, path in _given(paths)]
    for number, (name, path) in enumerate(named):
        for other, same in named[:number]:
            if path.absolute() == same.absolute():
                raise ConfigError(f"--{name} and --{other} are the same file, {path}: name another")
