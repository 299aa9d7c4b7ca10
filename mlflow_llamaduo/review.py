"""What a reviewer is told: all versions, and one of them closely, beside the champion.

    versions  ->  the one that is shown: its difference to the champion, and answers where the two differ most

Nothing is changed here, and nothing that is missing stops a review: it is a note, and the reviewer reads on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_llamaduo.core.beside import Asked, Beside, asked, beside
from mlflow_llamaduo.core.figures import Absent, Against, measured
from mlflow_llamaduo.core.rules import SCORES, Figure
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.evidence import finite
from mlflow_llamaduo.tracking.tables import ANSWERS, rows_of
from mlflow_llamaduo.versions import Bounds, Evidence, Seen, at_hand, versions


@dataclass(frozen=True, slots=True)
class Difference:
    """One score of the version less the champion's, in points, on the prompts that both have verdicts on."""

    score: str
    points: Bounds
    prompts: int
    note: str


@dataclass(frozen=True, slots=True)
class Review:
    """All versions, the newest first, and one of them more closely; `notes` say what is missing, and why."""

    name: str
    versions: tuple[Seen, ...]
    shown: Seen | None = None
    champion: int | None = None
    differences: tuple[Difference, ...] = ()
    answers: tuple[Beside, ...] = ()
    notes: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """As JSON values: without every single score, and with null for what is no number."""
        row = asdict(replace(self, versions=tuple(_brief(v) for v in self.versions), shown=None))
        for version, seen in zip(row["versions"], self.versions, strict=True):
            del version["evidence"]
            version["scores"] = {score: asdict(mean) for score, mean in _scores(seen).items()}
        shown = self.shown
        row["shown"] = shown and shown.number
        row["lineage"] = asdict(shown.evidence.lineage) if shown and shown.evidence else None
        values: dict[str, Any] = finite(row)
        return values


def review(name: str, number: int | None, count: int) -> Review:
    """Everything about the versions of a registered model.

    Args:
        name: `llamaduo-<task>`.
        number: the version to look at more closely; by default the challenger, else the newest.
        count: prompts whose answers are shown.

    Raises:
        DataError: there is no such version.
        StageError: MLflow cannot be read.
    """
    with at_hand():
        seen = versions(name)
        if not seen:
            return Review(name, ())
        shown, champion = _shown(name, seen, number), _with("champion", seen)
        known = Review(name, seen, shown, champion.number if champion else None)
        return _beside(known, shown, champion, count)


def _shown(name: str, seen: tuple[Seen, ...], number: int | None) -> Seen:
    if number is None:
        return _with("challenger", seen) or seen[0]
    for version in seen:
        if version.number == number:
            return version
    known = ", ".join(str(version.number) for version in reversed(seen))
    raise DataError(f"{name} has no version {number}; it has {known}")


def _with(alias: str, seen: tuple[Seen, ...]) -> Seen | None:
    return next((version for version in seen if alias in version.aliases), None)


def _beside(known: Review, shown: Seen, champion: Seen | None, count: int) -> Review:
    """The review with what the version and the champion differ in."""
    if shown.evidence is None:
        return replace(known, notes=(shown.note,))
    its, why = _comparable(shown, champion, _with("previous", known.versions))
    notes = [why] if why else []
    differences: tuple[Difference, ...] = ()
    if its:
        differences, absent = _differences(shown.evidence, its)
        notes += absent
    own_answers, missing = _answers(shown, shown.evidence) if count else ({}, "")
    its_answers: Mapping[str, Asked] | None = None
    if its and champion and not missing and count:
        its_answers, missing = _answers(champion, its)
    if missing:
        return replace(known, differences=differences, notes=(*notes, missing))
    answers = beside(own_answers, its_answers, count)
    if its_answers is not None and not answers and count:
        notes.append("no prompt was asked of both, so no answers stand side by side")
    return replace(known, differences=differences, answers=answers, notes=tuple(notes))


def _comparable(shown: Seen, champion: Seen | None, previous: Seen | None) -> tuple[Evidence | None, str]:
    """The champion's evidence, if the version can be held against it; else why not."""
    own = shown.evidence
    if champion is None:
        return None, "there is no champion yet: nothing to compare it with"
    if champion.number == shown.number:
        other = f": --version {previous.number} holds the one before against it" if previous else ""
        return None, f"version {shown.number} is the champion itself{other}"
    its = champion.evidence
    if own is None or its is None:
        return None, f"not compared with the champion: {champion.note}"
    if own.card.judge != its.card.judge:
        judges = (
            f"{own.card.judge or 'nobody'} judged version {shown.number}, {its.card.judge or 'nobody'} the champion"
        )
        return None, f"not compared with the champion: {judges}, and judges' scales differ"
    prompts = shown.judge_prompt, champion.judge_prompt
    if all(prompts) and prompts[0] != prompts[1]:
        return (
            None,
            f"not compared with the champion: the judge's prompt was {prompts[0]}, the champion's {prompts[1]}",
        )
    return its, ""


def _differences(own: Evidence, its: Evidence) -> tuple[tuple[Difference, ...], list[str]]:
    found, notes = [], []
    for score in SCORES:
        measure = measured(Figure.read(f"{score}_over_champion"), own.card.table, Against({"champion": its.card}))
        if isinstance(measure, Absent):
            notes.append(f"not compared with the champion: {measure.why} (other test prompts, or some left unjudged)")
        else:
            at = measure.estimate
            found.append(Difference(score, Bounds.of(at.value, at.low, at.high), at.prompts, measure.note))
    return tuple(found), list(dict.fromkeys(notes))


def _answers(version: Seen, evidence: Evidence) -> tuple[dict[str, Asked], str]:
    """The judged answers of a version by prompt, out of its run's `responses.json`; or why there are none."""
    scores = {row.response_id: (row.precision, row.similarity) for row in evidence.card.scored}
    gone = f"the answers of version {version.number} are not to be had"
    try:
        rows = rows_of(version.run_id, "responses.json", ANSWERS)
    except (MlflowException, OSError) as error:
        why = " ".join(str(error).split())[:160]
        return {}, f"{gone}: responses.json of run {version.run_id or '(none)'} ({why})"
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return {}, f"{gone}: responses.json of run {version.run_id} is not as llamaduo writes it ({error})"
    return asked([{column: str(text) for column, text in row.items()} for row in rows], scores), ""


def _brief(version: Seen) -> Seen:
    return replace(version, evidence=None)


def _scores(version: Seen) -> Mapping[str, Bounds]:
    return version.evidence.scores if version.evidence else {}
