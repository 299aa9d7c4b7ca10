"""A review as plain text for the terminal.

Answers, instructions and what people typed are hostile input: nothing of it is printed as it came, and every text is
wrapped here, so that each of its lines has a margin and none looks like one of ours.
"""

import textwrap
from collections.abc import Iterator, Sequence

from mlflow_llamaduo.core.beside import Answer, Beside
from mlflow_llamaduo.core.terminal import plain as made_plain
from mlflow_llamaduo.review import Difference, Review
from mlflow_llamaduo.versions import Bounds, Seen

HEAD = (
    *("version", "aliases", "made (UTC)", "precision", "95 %", "similarity", "95 %"),
    *("gate", "dollars", "parity", "review"),
)
WIDTH = 100
INSTRUCTION, TEXT, WORDS = 240, 1000, 400
"""Characters that are shown of an instruction, of an answer or a reference, and of what a person wrote."""


def plain(text: str, most: int = WORDS) -> str:
    """As `core.terminal.plain`; of a person's words, if nothing else is said."""
    return made_plain(text, most)


def told(review: Review) -> str:
    """The whole review: versions as a table, one of them closely, and answers side by side."""
    if not review.versions or review.shown is None:
        task = review.name.removeprefix("llamaduo-")
        return f"{review.name} has no version yet: llamaduo run --task {task} makes the first"
    lines = [f"{review.name}: {len(review.versions)} version(s)", "", *_table(review.versions), ""]
    lines += [*_closely(review.shown), *(f"  note: {plain(note, TEXT)}" for note in review.notes)]
    if review.differences:
        lines += ["", f"version {review.shown.number} less champion (version {review.champion}), in points:"]
        lines += [_difference(difference) for difference in review.differences]
    lines += _answers(review)
    return "\n".join(line.rstrip() for line in lines)


def _table(versions: Sequence[Seen]) -> list[str]:
    rows = [HEAD, *(_row(version) for version in versions)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _row(version: Seen) -> tuple[str, ...]:
    scores = version.evidence.scores if version.evidence else {}
    means = [_mean(scores.get(score)) for score in ("precision", "similarity")]
    return (
        str(version.number),
        plain(", ".join(version.aliases)) or "-",
        _minute(version.made),
        *means[0],
        *means[1],
        plain(version.decision.partition(":")[0], 20) or "not llamaduo's",
        "-" if version.usd is None else f"{version.usd:.2f}",
        plain(version.parity.partition(":")[0], 20) or "-",
        _last_word(version),
    )


def _mean(mean: Bounds | None) -> tuple[str, str]:
    if mean is None or mean.value is None:
        return "-", "-"
    return f"{mean.value:.1f}", _interval(mean, "{:.0f}")


def _interval(bounds: Bounds, form: str) -> str:
    if bounds.low is None or bounds.high is None:
        return "-"
    return f"{form.format(bounds.low)} to {form.format(bounds.high)}"


def _last_word(version: Seen) -> str:
    said = plain(version.review, 20) or "-"
    said += f" by {plain(version.reviewer, 40)}" if version.reviewer else ""
    said += f", {_minute(version.reviewed_at)}" if version.reviewed_at else ""
    return f"{said}, over its gate" if version.override else said


def _minute(when: str) -> str:
    """Of a time as ISO 8601: the day, hours and minutes."""
    return plain(when[:16].replace("T", " "))


def _closely(version: Seen) -> Iterator[str]:
    """What is known of one version, label by label."""
    gate = version.decision.partition(":")[0]
    yield f"version {version.number}" + (f" ({plain(', '.join(version.aliases))})" if version.aliases else "")
    known = {"gate": gate or "none: llamaduo did not make it", "parity": version.parity, "run": version.run_id}
    known |= {"as a shadow": version.shadow, "report": version.report}
    lineage = version.evidence.lineage if version.evidence else None
    yield _labelled("gate", known.pop("gate"))
    for passed, said in lineage.rules if lineage else ():
        yield f"    {'ok' if passed else 'NO'}  {plain(said)}"
    if lineage is None and version.decision:
        yield _labelled("decision", version.decision)
    if version.override:
        yield _labelled("over its gate", version.override)
    if lineage:
        known |= {
            "base model": lineage.base_model,
            "adapter": lineage.adapter,
            "trained on": f"{lineage.train_rows} rows, digest {lineage.train_digest}",
            "judge": lineage.judge,
            "generator": lineage.generator,
            "families": lineage.families,
        }
    for label, value in known.items():
        yield _labelled(label, value or "-")
    if lineage and lineage.offline:
        yield "  judge and generator are offline stand-ins: the scores are no LLM's opinion"
    for at, said in version.words:
        yield _labelled("said", f"{_minute(at)}  {said}")


def _labelled(label: str, value: str) -> str:
    return f"  {label + ':':<15}{plain(value)}"


def _difference(difference: Difference) -> str:
    points = difference.points
    value = "-" if points.value is None else f"{points.value:+.1f}"
    said = f"  {difference.score:<11} {value} (95 %: {_interval(points, '{:+.1f}')}; {difference.prompts} prompts)"
    return f"{said}, {plain(difference.note)}" if difference.note else said


def _answers(review: Review) -> Iterator[str]:
    if not review.answers or review.shown is None:
        return
    both = review.answers[0].champion is not None
    count = f"{len(review.answers)} prompt(s)"
    yield ""
    yield f"answers where the two differ most, {count}:" if both else f"its weakest answers, {count}:"
    for place, pair in enumerate(review.answers, 1):
        yield from _pair(place, pair, review)


def _pair(place: int, pair: Beside, review: Review) -> Iterator[str]:
    version = review.shown.number if review.shown else 0
    yield ""
    yield from _text(f"{place}. instruction", plain(pair.instruction, INSTRUCTION))
    yield from _text("reference", plain(pair.reference, TEXT))
    if pair.champion is not None:
        yield from _text(
            f"champion, version {review.champion}{_points(pair.champion)}", plain(pair.champion.text, TEXT)
        )
    yield from _text(f"version {version}{_points(pair.candidate)}", plain(pair.candidate.text, TEXT))


def _points(answer: Answer) -> str:
    return f" (precision {answer.precision:.0f}, similarity {answer.similarity:.0f})"


def _text(label: str, text: str) -> Iterator[str]:
    yield f"  {label}"
    yield from textwrap.wrap(text, WIDTH, initial_indent="    | ", subsequent_indent="    | ") or ["    | (nothing)"]
