"""A judge report in words: every figure with what is good about it, or bad, and what to do.

Names and reasons in it are other people's text: what a terminal would obey is taken out of them. The words for kappa
are those of Landis and Koch 1977; the other limits are this tool's own rules of thumb (docs/how-to/judge.md).
"""

from collections.abc import Iterator

from mlflow_llamaduo.core.agreement import Agreement, Correlation, Crossing, Kappa, Spread, Swap
from mlflow_llamaduo.core.trust import Between, OneJudge, OneScore, Report

SMALL = 30
"""Labelled responses below which a figure may change much with the next ones."""
SAYS = 6
"""Labelled responses below which a figure is given without a word about it."""
STRONG, WEAK = 0.7, 0.4
"""Spearman from which two order alike, and below which they do not."""
NEAR, FAR = 10.0, 20.0
"""Mean absolute errors in points: good up to the one, bad from the other."""
BIAS = 5.0
STEADY, NOISY = 3.0, 8.0
"""Points within a response."""
LENGTH = 0.3
"""Correlation with length worth a look."""
TURNED = 5.0
"""Points that trading places may make."""
WORDS = ((0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"), (1.0, "almost perfect"))
"""For a kappa of at most so much; below 0 it is poor."""

Row = tuple[str, str, str]
"""A figure's name, its value, and how to read it."""


def told(report: Report) -> str:
    """The report as plain text, a figure a line."""
    blocks = [block for judge in report.judges for block in _judge(judge, report)]
    blocks += [_between(pair) for pair in report.between]
    blocks += [_swap(swap) for swap in report.swaps]
    every = [row for _, rows in blocks for row in rows]
    wide = [max(len(row[column]) for row in every) for column in (0, 1)]
    lines: list[str] = []
    for title, rows in blocks:
        lines += ["", title] if lines else [title]
        lines += [f"  {name:<{wide[0]}}  {value:<{wide[1]}}  {said}".rstrip() for name, value, said in rows]
    return "\n".join([*lines, "", *_foot(report)])


def clean(text: str, most: int = 300) -> str:
    """Somebody's text as one short line: a reply or a row can hold escape sequences."""
    one_line = " ".join(text.split())
    shown = "".join(character if character.isprintable() else "?" for character in one_line)
    return shown if len(shown) <= most else f"{shown[:most]}..."


def landis_koch(kappa: float) -> str:
    """The word for a kappa."""
    return "poor" if kappa < 0 else next(word for most, word in WORDS if kappa <= most)


def _foot(report: Report) -> Iterator[str]:
    if not any(score.people.n for judge in report.judges for score in judge.scores):
        yield "No label of a person: what the judge's scores are worth is not known. Give some with --labels."
    yield "(a to b): 95 % interval. Words for kappa: Landis and Koch 1977; all other limits are rules of thumb."
    yield from (f"note: {clean(note)}" for note in report.notes)


def _judge(judge: OneJudge, report: Report) -> Iterator[tuple[str, list[Row]]]:
    name = clean(judge.judge, 60)
    share = f"{judge.judged} of {report.responses} responses judged"
    yield f"{name}: {share}; {judge.judgings} judgings, {judge.unjudged} of them without a score", []
    for score in judge.scores:
        yield f"{name}, {score.quantity}{_people(score.people.n)}", list(_score(score))


def _people(n: int) -> str:
    if not n:
        return ""
    return f": {n} labelled responses" + (", which are few: intervals are wide" if n < SMALL else "")


def _score(score: OneScore) -> Iterator[Row]:
    if score.people.n:
        yield from _agreement(score.people)
    yield "repeats", _points(score.spread.points), _read_spread(score.spread)
    for crossing in score.spread.crossings:
        yield (
            f"  both sides of {crossing.threshold:g}",
            f"{crossing.share:.0f} %",
            _read_sides(crossing, score.spread),
        )
    yield "length", _rho(score.length), _read_length(score.length, "longer answers")
    yield (
        "length / reference",
        _rho(score.relative_length),
        _read_length(score.relative_length, "answers longer than their reference"),
    )


def _agreement(people: Agreement) -> Iterator[Row]:
    few = f"of {people.n}: too few for a verdict; label {SAYS} or more" if people.n < SAYS else ""
    yield "Spearman", _rho(people.rank), few or _read_order(people.rank)
    yield "mean absolute error", _points(people.error), few or _read_error(people.error or 0.0)
    yield "bias", _points(people.bias, "+"), few or _read_bias(people.bias or 0.0)
    for kappa in people.kappas:
        yield f"kappa at {kappa.threshold:g}", _kappa(kappa), few or _read_kappa(kappa, people.n)


def _between(pair: Between) -> tuple[str, list[Row]]:
    agreement, names = pair.agreement, f"{clean(pair.one, 60)} and {clean(pair.other, 60)}"
    rows: list[Row] = [("Spearman", _rho(agreement.rank), clean(agreement.rank.why))]
    if agreement.n:
        rows.append(("mean absolute difference", _points(agreement.error), _kinder(pair)))
    for kappa in agreement.kappas if agreement.n else ():
        word = kappa.why if kappa.kappa is None else landis_koch(kappa.kappa)
        rows.append((f"kappa at {kappa.threshold:g}", _kappa(kappa), word))
    return f"{names}, {pair.quantity}: {agreement.n} responses that both judged", rows


def _kinder(pair: Between) -> str:
    bias = pair.agreement.bias or 0.0
    if abs(bias) < BIAS:
        return "neither is kinder; where they differ, the scores depend on whom you ask"
    kind, strict = (pair.one, pair.other) if bias > 0 else (pair.other, pair.one)
    return f"{clean(kind, 60)} gives {abs(bias):.1f} points more than {clean(strict, 60)}: a gate is for one judge"


def _swap(swap: Swap) -> tuple[str, list[Row]]:
    title = f"{clean(swap.judge, 60)}, similarity when reference and response trade places"
    if swap.points is None:
        return title, [("not measured", "", clean(swap.why))]
    rows: list[Row] = [("difference", _points(swap.points), _read_swap(swap))]
    rows += [(f"flips at {crossing.threshold:g}", f"{crossing.share:.0f} %", "") for crossing in swap.crossings]
    if swap.unjudged:
        rows.append(("without a score", str(swap.unjudged), "left out"))
    return f"{title}: {swap.n} responses", rows


def _read_order(rank: Correlation) -> str:
    if rank.rho is None:
        return clean(rank.why)
    if (rank.high or 0.0) < WEAK:
        return "bad: the order is not people's; change the judge's prompt or the judge"
    if (rank.low or 0.0) <= 0:
        return "may be chance: the interval holds 0; label more responses"
    if rank.rho >= STRONG:
        return "good: judge and people order answers alike"
    if rank.rho >= WEAK:
        return "middling: better and worse are told apart roughly; look at the largest differences"
    return "weak: the order is not people's; change the judge's prompt or the judge"


def _read_error(error: float) -> str:
    if error <= NEAR:
        return "good: a score is about what a person would give"
    if error < FAR:
        return "middling: means can be trusted more than single scores"
    return "bad: no gate is finer than this; change the judge's prompt or the judge"


def _read_bias(bias: float) -> str:
    if abs(bias) < BIAS:
        return "small: the judge is neither kinder nor stricter"
    kind = "kinder" if bias > 0 else "stricter"
    return f"the judge is {kind}: what it calls 70 is {70 - bias:.0f} to people"


def _read_kappa(kappa: Kappa, n: int) -> str:
    if kappa.kappa is None:
        return f"{kappa.why}: label answers on the other side too"
    alone = [who for who, count in zip(("the judge", "people"), kappa.above, strict=True) if count in (0, n)]
    if alone:
        return f"{alone[0]} put all {n} on one side, so kappa is 0 whatever the agreement"
    word = landis_koch(kappa.kappa)
    if kappa.kappa > 0.6:
        return f"{word}: a gate at {kappa.threshold:g} means what people see"
    if kappa.kappa > 0.4:
        return f"{word}: a gate at {kappa.threshold:g} is roughly people's; keep away from close calls"
    return f"{word}: the gate's line at {kappa.threshold:g} is not what people see"


def _read_spread(spread: Spread) -> str:
    if spread.points is None:
        return f"{spread.why}: judge with --repeats 2 or more"
    if spread.points <= STEADY:
        return "steady: one judging says nearly what many do"
    if spread.points < NOISY:
        return "some noise: the mean of several judgings takes it out"
    return "noisy: more --repeats, or a prompt that says what a score means"


def _read_sides(crossing: Crossing, spread: Spread) -> str:
    return f"of {spread.n} responses; a single judging may decide" if crossing.share >= 10 else ""


def _read_length(length: Correlation, which: str) -> str:
    if length.rho is None:
        return clean(length.why)
    if (length.low or 0.0) <= 0 <= (length.high or 0.0) or abs(length.rho) < LENGTH:
        return "small: scores do not follow length"
    better = "higher" if length.rho > 0 else "lower"
    return f"{which} score {better}: read some, are they {'better' if length.rho > 0 else 'worse'} or only long?"


def _read_swap(swap: Swap) -> str:
    chance = f" (repeats alone make {swap.by_chance:.1f})" if swap.by_chance else ""
    if (swap.points or 0.0) <= max(TURNED, swap.by_chance or 0.0):
        return f"good: which one is the reference hardly counts{chance}"
    return f"similarity is not mutual: who stands first counts{chance}; look at the prompt"


def _rho(correlation: Correlation) -> str:
    if correlation.rho is None:
        return "-"
    rho, low, high = (round(x or 0.0, 2) + 0.0 for x in (correlation.rho, correlation.low, correlation.high))  # no -0
    return f"{rho:+.2f}  ({low:+.2f} to {high:+.2f})"


def _kappa(kappa: Kappa) -> str:
    value = "-" if kappa.kappa is None else f"{round(kappa.kappa, 2) + 0.0:.2f}"
    return f"{value}  ({kappa.agreement:.0f} % agree)"


def _points(points: float | None, sign: str = "") -> str:
    return "-" if points is None else f"{points:{sign}.1f} points"
