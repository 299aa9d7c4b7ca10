"""The gate as it is configured: figures with their least values, in duo.yaml or on the command line."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from mlflow_llamaduo.config.sections import Section, nearest
from mlflow_llamaduo.core.rules import BASELINES, FIGURES, OPPONENTS, SCORES, By, Figure, GateRule

JUDGED_SHARE = 95.0
"""Implied in every gate that says nothing else: verdicts that are missing are limited, whatever else is asked for."""

LIMITS = {"over": (-100.0, 100.0), "perf_matching": (0.0, 200.0)}
SETTINGS = ("by", "forbid_same_family")


class Rule(Section):
    """The least value of a figure, and whether it or the lower bound of its interval must reach it."""

    at_least: float
    """The value."""
    by: By
    """Whether the lower bound must reach it, or the figure."""


class Gate(Section):
    """What a version must reach to be promoted; every rule must hold.

    In a file it is a mapping of figures to numbers, or to `{at_least: 90, by: mean}`.
    """

    by: By = "lower_bound"
    """Whether the lower bound of the figure's 95 % interval must reach the value, or the figure; for rules that do
    not say it."""
    forbid_same_family: bool = False
    """A judge of the generator's family is an error; else a warning."""
    rules: Annotated[dict[str, Rule], Field(min_length=1)]
    """In a file each figure is a key of its own."""


def rules_of(gate: Gate) -> tuple[GateRule, ...]:
    """The gate as the rules that `decide` takes."""
    rules = {"judged_share": Rule(at_least=JUDGED_SHARE, by="mean"), **gate.rules}
    return tuple(GateRule(figure, rule.at_least, rule.by) for figure, rule in sorted(rules.items()))


def needed(gate: Gate) -> tuple[frozenset[str], frozenset[str]]:
    """The baselines and the opponents that the rules cannot do without."""
    figures = [Figure.read(name) for name in gate.rules]
    return (
        frozenset(figure.other for figure in figures if figure.other and figure.kind != "win_rate"),
        frozenset(figure.other for figure in figures if figure.kind == "win_rate"),
    )


def _form(value: Any) -> Any:
    """A number asks for both means, as the authors' gate does; `figure=70,by=mean` is the command line's form."""
    value = parsed(_typed(value) if isinstance(value, str) else value)
    if not isinstance(value, Mapping):
        if isinstance(value, Gate):
            return value
        raise ValueError("expected a number, or figures with their least values")
    if not value:
        raise ValueError("a gate without rules would pass everything or nothing; leave it out for the default one")
    if isinstance(value.get("rules"), Mapping) and set(value) <= {*SETTINGS, "rules"}:  # as config.json has it
        value = {**{name: value[name] for name in SETTINGS if name in value}, **value["rules"]}
    return _section({**DEFAULT, **value} if set(value) <= set(SETTINGS) else value)  # `{by: mean}` is of the default


def _section(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Settings and rules apart; all that is wrong with the rules is told."""
    by = value.get("by", Gate.model_fields["by"].default)
    if by not in get_args(By):
        raise ValueError(f"by: {by!r} is neither {' nor '.join(get_args(By))}")
    rules: dict[str, Any] = {}
    problems: list[str] = []
    for name in [name for name in value if name not in SETTINGS]:
        try:
            rules[str(name)] = _rule(str(name), value[name], by)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return {**{name: value[name] for name in SETTINGS if name in value}, "rules": rules}


def parsed(gate: Any) -> Any:
    """A gate as a mapping where it was typed as text or a number; what cannot be read is left for `_form` to tell."""
    try:
        gate = _typed(gate) if isinstance(gate, str) else gate
    except ValueError:
        return gate
    is_number = isinstance(gate, int | float) and not isinstance(gate, bool)
    return {f"{score}_mean": gate for score in SCORES} if is_number else gate


def _typed(text: str) -> Any:
    first, *rest = text.split(",")
    try:
        both = {} if "=" in first else {f"{score}_mean": float(first) for score in SCORES}
        return both | dict(part.split("=", 1) for part in (rest if both else [first, *rest]))
    except ValueError as error:
        raise ValueError(f"expected a number or figure=number,..., not {text!r}") from error


def _rule(name: str, least: Any, by: str) -> dict[str, Any]:
    given = dict(least) if isinstance(least, Mapping) else {"at_least": least}
    if unknown := set(given) - {"at_least", "by"}:
        raise ValueError(f"{name}: {', '.join(sorted(map(str, unknown)))}: a rule has at_least and by")
    if given.get("by", by) not in get_args(By):
        raise ValueError(f"{name}: by: {given['by']!r} is neither {' nor '.join(get_args(By))}")
    try:
        kind = Figure.read(name).kind
    except ValueError as error:
        raise ValueError(str(error).replace("; known", f"{nearest(name, _examples())}; known", 1)) from error
    low, high = LIMITS.get(kind, (0.0, 100.0))
    try:
        number = float(given["at_least"])
    except (KeyError, TypeError, ValueError):
        number = float("nan")
    if isinstance(given.get("at_least"), bool) or not low <= number <= high:
        raise ValueError(f"{name}: a number from {low:g} to {high:g} is wanted, not {given.get('at_least')!r}")
    return {"by": by, **given, "at_least": number}


def _examples() -> list[str]:
    """Figures as people write them: what a wrong name is compared with."""
    filled = {"<threshold>": ("50", "70"), "<baseline>": BASELINES, "<opponent>": OPPONENTS}
    names = []
    for figure in FIGURES:
        hole = next((hole for hole in filled if hole in figure), None)
        names += [figure.replace(hole, each) for each in filled[hole]] if hole else [figure]
    return names


GateForm = Annotated[Gate, BeforeValidator(_form)]

DEFAULT: Mapping[str, Any] = {
    "precision_perf_matching": 90,
    "similarity_perf_matching": 90,
    "judged_share": {"at_least": JUDGED_SHARE, "by": "mean"},
    "precision_over_champion": {"at_least": 0, "by": "mean"},
    "similarity_over_champion": {"at_least": 0, "by": "mean"},
}
DEFAULT_GATE = Gate.model_validate(_form(DEFAULT))
"""At least 90 % of the service LLM's own score by the lower bound, and not worse than the champion."""
