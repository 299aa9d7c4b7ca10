"""What became of planted rows, held against the truth about them."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.curation.planting import Truth

COPIES = ("exact", "near95", "near90")


@dataclass
class Outcome:
    """Of each kind of copy and each class of leaks: how many were to be found, and how many were.

    A group of copies of which nothing is kept counts as not found at all: `lost`.
    """

    found: Counter[str] = field(default_factory=Counter)
    planted: Counter[str] = field(default_factory=Counter)
    touched: Counter[str] = field(default_factory=Counter)
    """Copies of which something is gone, be it their original: what is not found where nothing of a group is kept."""
    lost: int = 0
    clean: int = 0
    """Rows that leak nothing."""
    dropped: list[str] = field(default_factory=list)
    """Rows that have no copy and leak nothing, and went as copies."""
    flagged: list[str] = field(default_factory=list)
    """Those that went as leaks."""
    missed: list[str] = field(default_factory=list)
    """Copies that were kept and leaks that were not found."""

    def share(self, *kinds: str) -> float:
        """Per cent found of some kinds, all in one."""
        planted = sum(count for name, count in self.planted.items() if name.startswith(kinds))
        return 100 * sum(count for name, count in self.found.items() if name.startswith(kinds)) / max(1, planted)

    def touched_share(self, kind: str) -> float:
        """Per cent of the copies of a kind of which something is gone."""
        return 100 * self.touched[kind] / max(1, self.planted[kind])


def outcome(kept: Iterable[str], gone: Mapping[str, str], truths: Mapping[str, Truth], known: Set[str]) -> Outcome:
    """Compare what was kept, and what was not and why, with the truth.

    Args:
        kept: names of the rows that were kept.
        gone: names of the others, each with the reason: `leak`, or another for a copy.
        truths: what each row is.
        known: rows that were there before, of which no copy is to be kept.
    """
    result, groups = Outcome(), defaultdict[str, list[str]](list)
    stayed = tuple(kept)
    held = set(stayed)
    for name in (*stayed, *gone):
        truth, why = truths[name], gone.get(name)
        if truth.kind == "leak":
            _count_leak(result, name, truth, found=why == "leak", held=name in held)
            continue
        result.clean += 1
        result.flagged += [name] if why == "leak" else []
        if truth.kind in COPIES:
            groups[truth.group].append(name)
        elif why and why != "leak":
            result.dropped.append(name)
    there = {truths[name].group for name in known}
    for group, names in groups.items():
        if len(names) > 1 or group in there:
            _count(result, names, held, truths[names[0]].kind, known=group in there)
        elif gone.get(names[0], "leak") != "leak":  # its copies are elsewhere
            result.dropped += names
    return result


def _count_leak(result: Outcome, name: str, truth: Truth, *, found: bool, held: bool) -> None:
    result.planted[f"leak {truth.group}"] += 1
    result.found[f"leak {truth.group}"] += found
    result.missed += [name] if held else []


def _count(result: Outcome, names: list[str], held: Set[str], kind: str, *, known: bool) -> None:
    """One group of copies: of those that are new one is to be kept, or none if one is known."""
    stayed = [name for name in names if name in held]
    wanted = 0 if known else 1
    result.planted[kind] += len(names) - wanted
    result.touched[kind] += min(len(names) - len(stayed), len(names) - wanted)
    if len(stayed) < wanted:
        result.lost += 1
        return
    result.found[kind] += len(names) - len(stayed)
    result.missed += stayed[wanted:]


def of_files(folder: Path, name: str, truths: Mapping[str, Truth], known: Set[str]) -> Outcome:
    """What the command wrote."""
    with (folder / f"{name}.kept.jsonl").open() as rows:
        kept = [json.loads(row)["id"] for row in rows]
    with (folder / f"{name}.rejected.jsonl").open() as rows:
        gone = {row["row"]["id"]: row["reason"] for row in map(json.loads, rows)}
    return outcome(kept, gone, truths, known)


def train_leaks(folder: Path, name: str, ids: list[str], truths: Mapping[str, Truth]) -> Outcome:
    """The leaks in the train file, whose rows are `ids`, and which of them the report names."""
    leaks = json.loads((folder / f"{name}.report.json").read_text())["train"]["leaks"]
    named = {ids[int(leak["where"].rsplit(":", 1)[1]) - 1] for leak in leaks}
    result = Outcome()
    for each in ids:
        if truths[each].kind == "leak":
            _count_leak(result, each, truths[each], found=each in named, held=each not in named)
        else:
            result.clean += 1
            result.flagged += [each] if each in named else []
    return result
