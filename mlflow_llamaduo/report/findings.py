"""What whoever decides on a version should be warned of: each finding in words, with the figures that it is from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from mlflow_llamaduo.core.ledger import PAID
from mlflow_llamaduo.report.read import Told
from mlflow_llamaduo.tracking.description import STAND_IN

Row = Mapping[str, Any]

DRIFT = 1.5
"""Times as long, or as short, from which new pairs or answers are told to have drifted: an assumption."""
WIDE = 10.0
"""Points of half an interval from which a mean says little."""
APART = 10.0
"""Points between two judges' means from which they are told to disagree."""
FLIPS = 30.0
"""Percent of duels that turn with the order from which a judge is told to go by the place."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what it means; `kind` is one word for it."""

    kind: str
    said: str


LOOKED_FOR = (
    "judge and generator of one family",
    "answers that were not judged",
    "pairs that give a test prompt away",
    "lengths that drift",
    "intervals that are wide",
    "judges that disagree",
    "a judge that goes by the place",
)


def findings(told: Told) -> tuple[Finding, ...]:
    """All that was found, in the order of `LOOKED_FOR`."""
    return tuple(
        finding
        for look in (_stand_ins, _family, _unjudged, _contamination, _drift, _wide, _judges, _place, _free)
        for finding in look(told)
    )


def _stand_ins(told: Told) -> Iterator[Finding]:
    if told.account["offline_stand_ins"]:
        yield Finding("stand-in", STAND_IN)


def _family(told: Told) -> Iterator[Finding]:
    same, _, family = str(told.account["judge_family"]).partition(": ")
    if same == "same":
        yield Finding(
            "same family",
            f"Judge {told.account['judge']} and generator {told.account['generator']} are both of {family}: judges "
            "favour students of their own family (preference leakage, arXiv 2502.01534).",
        )


def _unjudged(told: Told) -> Iterator[Finding]:
    cards = {f"round {r['number']}": r["scorecard"] for r in told.account["rounds"]} | dict(told.account["baselines"])
    for name, card in cards.items():
        if card["unjudged"]:
            yield Finding(
                "unjudged",
                f"{name}: {card['unjudged']} of {card['judgings']} judgings gave no scores. They are counted, "
                "and are in no mean.",
            )


def _contamination(told: Told) -> Iterator[Finding]:
    left = told.account["data"]["parts"]["left_out"]
    if left:
        yield Finding(
            "contamination",
            f"{left} coverage pairs are in no part: they were test pairs before, or their text gives one away.",
        )
    for number, rows in told.rejected.items():
        leaks = sum(row["reason"] == "leak" for row in rows)
        if leaks:
            yield Finding(
                "contamination", f"Round {number}: {leaks} new pairs gave a held-out prompt away and were rejected."
            )


def _drift(told: Told) -> Iterator[Finding]:
    for what in ("prompt", "response"):
        ratio = told.metrics.get(f"synthesis/{what}_length_ratio")
        if ratio is not None and not 1 / DRIFT <= ratio <= DRIFT:
            yield Finding("drift", f"The last round's new {what}s are {ratio:.2f} times as long as people's.")
    model = told.models.get(told.name)
    pairs = (
        [(len(a.text), len(asked.reference)) for asked in model.answers.values() for a in asked.answers]
        if model
        else []
    )
    if pairs:
        own, its = (median(length) for length in zip(*pairs, strict=True))
        if its and not 1 / DRIFT <= own / its <= DRIFT:
            yield Finding(
                "drift",
                f"Half of the answers have {own:.0f} characters or more, of the references {its:.0f}: judges may go "
                "by length.",
            )


def _wide(told: Told) -> Iterator[Finding]:
    if told.shown is None:
        return
    mean = told.shown["scorecard"]["figures"]["precision_mean"]
    if mean["low"] is not None and mean["high"] is not None and mean["high"] - mean["low"] > 2 * WIDE:
        yield Finding(
            "wide interval",
            f"{mean['prompts']} test prompts leave the mean precision between {mean['low']:.1f} and "
            f"{mean['high']:.1f}: more of them would say more.",
        )


def _judges(told: Told) -> Iterator[Finding]:
    if told.shown is None:
        return
    own = told.shown["scorecard"]
    for other in told.shown["others"]:
        for score in ("precision", "similarity"):
            mine, its = (card["figures"][f"{score}_mean"]["value"] for card in (own, other))
            if mine is not None and its is not None and abs(mine - its) > APART:
                yield Finding(
                    "judges disagree",
                    f"Mean {score} is {mine:.1f} by {own['judge']} and {its:.1f} by {other['judge']}: only the first "
                    "is in the gate.",
                )


def _place(told: Told) -> Iterator[Finding]:
    for duels in told.shown["duels"] if told.shown else ():
        flips, first = duels["flip_rate"], duels["first_preference"]
        if flips is not None and flips > FLIPS:
            told_first = "" if first is None else f"; {first:.0f} % of the winners stood first"
            yield Finding(
                "order",
                f"Beside {duels['opponent']}, {flips:.0f} % of the duels turn when the answers change places"
                f"{told_first}.",
            )


def _free(told: Told) -> Iterator[Finding]:
    worked = [row for row in told.account["ledger"] if row["stage"] not in PAID and row["seconds"]]
    if worked and not any(row["usd"] for row in worked):
        hours = sum(row["seconds"] for row in worked) / 3600
        yield Finding(
            "no price",
            f"{hours:.2f} hours of our own machines are in the ledger for nothing: finetune.usd_per_hour says what "
            "one costs.",
        )
