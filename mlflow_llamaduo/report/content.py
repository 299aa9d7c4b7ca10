"""What stands in a report's sections, as values: facts, tables, answers side by side, plan beside ledger, lineage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow_llamaduo.core.beside import Asked
from mlflow_llamaduo.core.ledger import STAGES
from mlflow_llamaduo.core.rules import BASELINES, SCORES
from mlflow_llamaduo.core.scoring import perf_matching
from mlflow_llamaduo.report.figures import called, interval, when
from mlflow_llamaduo.report.read import Told

Row = Mapping[str, Any]

EXAMPLES = 3
"""Best, worst and most changed prompts each, and rejected rows of each reason."""


@dataclass(frozen=True, slots=True)
class Side:
    """One prompt as it is shown: what each model answered, the first being the shown round's."""

    instruction: str
    reference: str
    answers: tuple[tuple[str, Any], ...]
    note: str


def why(told: Told) -> str:
    """The decision in a sentence."""
    account, shown = told.account, told.shown
    if account["detail"]:
        return f"{str(account['detail'])[:1].upper()}{str(account['detail'])[1:]}."
    if shown is None:
        return "No round was finished."
    version = f"version {shown['version']} (round {shown['number']})"
    if shown["passed"]:
        return f"{version.capitalize()} passes every rule of its gate."
    failed = sum(not rule["passed"] for rule in shown["rules"])
    count = len(account["rounds"])
    best = version.capitalize() if count == 1 else f"None of {count} versions passes. The best, {version},"
    return f"{best} fails {failed} of its {len(shown['rules'])} rules."


def facts(told: Told) -> Iterator[tuple[str, str]]:
    account, shown = told.account, told.shown
    if shown:
        figures = shown["scorecard"]["figures"]
        yield "version", f"{account['registered_model']} {shown['version']}"
        yield from ((f"mean {score}", interval(figures[f"{score}_mean"])) for score in SCORES)
        yield "train rows", f"{shown['train_rows']:,}"
    yield "rounds", str(len(account["rounds"]))
    yield "spent", dollars(sum(row["usd"] for row in account["ledger"]))
    yield "break-even", when(account["costs"]["breakeven_months"]).partition(";")[0]


def score_rows(account: Row) -> Iterator[dict[str, Any]]:
    """Baselines and rounds: means with intervals, Perf. Matching, coverage."""
    service_llm = account["baselines"].get("service_llm")
    known = [(called(name), account["baselines"][name], None) for name in BASELINES if name in account["baselines"]]
    known += [(f"round {r['number']}", r["scorecard"], r) for r in account["rounds"]]
    for name, card, one in known:
        means = {score: card["figures"][f"{score}_mean"] for score in SCORES}
        yield {
            "name": name,
            "means": [(interval(mean), _matching(mean, service_llm, score)) for score, mean in means.items()],
            "coverage": [
                card["figures"][f"{score}_coverage_{at:g}"]["value"]
                for score in SCORES
                for at in account["thresholds"]
            ],
            "version": one["version"] if one else None,
            "passed": one["passed"] if one else None,
            "rows": one["train_rows"] if one else None,
        }


def _matching(mean: Row, service_llm: Row | None, score: str) -> str:
    its = service_llm["figures"][f"{score}_mean"]["value"] if service_llm else None
    if not its or mean["value"] is None:
        return ""
    return f"{perf_matching(mean['value'], its):.0f} %"


def rejections(told: Told) -> list[tuple[str, int, Sequence[Row]]]:
    """By reason: how many in all, and some of them."""
    found: dict[str, list[Row]] = {}
    for row in told.bad_rows:
        shown = {"where": f"source, {row['where']}", "detail": "", "instruction": "", "response": ""}
        found.setdefault(str(row["reason"]), []).append(shown)
    for number, rows in told.rejected.items():
        for row in rows:
            found.setdefault(str(row["reason"]), []).append({"where": f"round {number}", **row})
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [(reason.replace("_", " "), len(rows), rows[:EXAMPLES]) for reason, rows in ordered]


def sides(told: Told) -> list[tuple[str, list[Side]]]:
    """The best, the worst and the most changed prompts, each once."""
    own = told.models[told.name].answers if told.name in told.models else {}
    base = told.models["base"].answers if "base" in told.models else {}
    ranked = sorted(own, key=lambda prompt: -own[prompt].points)
    best = ranked[:EXAMPLES]
    worst = [prompt for prompt in reversed(ranked) if prompt not in best][:EXAMPLES]
    changed = [prompt for prompt in ranked if prompt in base and prompt not in (*best, *worst)]
    changed.sort(key=lambda prompt: -abs(own[prompt].points - base[prompt].points))
    groups = {"Best": best, "Worst": worst, "Most changed from the base model": changed[:EXAMPLES]}
    return [
        (name, [_side(told, prompt, own[prompt], base.get(prompt)) for prompt in prompts])
        for name, prompts in groups.items()
        if prompts
    ]


def _side(told: Told, prompt: str, own: Asked, base: Asked | None) -> Side:
    answers = [(told.name, own.typical)]
    if base:
        answers.append(("base", base.typical))
    its = told.models["service_llm"].answers.get(prompt) if "service_llm" in told.models else None
    if its:
        answers.append(("service LLM", its.typical))
    note = f"{own.points - base.points:+.0f} points of 200 against the base" if base else ""
    return Side(own.instruction, own.reference, tuple(answers), note)


def stage_rows(account: Row) -> Iterator[dict[str, Any]]:
    """Plan and actual by stage, over all rounds and baselines."""
    for stage in STAGES:
        actual = [row for row in account["ledger"] if row["stage"] == stage]
        planned = [row for row in account["planned"] if row["stage"].rpartition(": ")[2] == stage]
        if actual or planned:
            yield _beside(stage, planned, actual)
    yield _beside("all", account["planned"], account["ledger"])


def where_rows(account: Row) -> Iterator[dict[str, Any]]:
    """The same by round and baseline."""
    names = [row["stage"].rpartition(": ")[0] for row in account["planned"]]
    names += [row["where"] for row in account["ledger"]]
    ordered = sorted(dict.fromkeys(names), key=lambda name: (name.startswith("round "), len(name), name))
    for name in ordered:
        planned = [row for row in account["planned"] if row["stage"].rpartition(": ")[0] == name]
        yield _beside(name, planned, [row for row in account["ledger"] if row["where"] == name])


def _beside(name: str, planned: Sequence[Row], actual: Sequence[Row]) -> dict[str, Any]:
    def sums(key: str) -> Any:
        return sum(row[key] for row in actual)

    likely, high = (sum(row["usd"][at] for row in planned) for at in ("likely", "high"))
    return {
        "name": name,
        "planned_usd": likely if planned else None,
        "planned_high_usd": high if planned else None,
        "usd": sums("usd"),
        "planned_s": sum(60 * (row["minutes"] or 0.0) for row in planned) if planned else None,
        "seconds": sums("seconds"),
        "planned_tokens": sum(row["input_tokens"] + row["output_tokens"] for row in planned),
        "tokens": sums("input_tokens") + sums("output_tokens"),
        "input_tokens": sums("input_tokens"),
        "output_tokens": sums("output_tokens"),
        "calls": sums("calls"),
    }


def lineage(told: Told) -> Iterator[tuple[str, str]]:
    account, evidence = told.account, told.evidence
    adapter, parity = evidence.get("adapter") or {}, evidence.get("parity") or {}
    yield "MLflow run", told.run_id
    yield "begun", _time(told.began_ms)
    if told.ended_ms:
        yield "ended", _time(told.ended_ms)
    yield "llamaduo", account["llamaduo"]
    yield "fingerprint", account["fingerprint"]
    if told.shown:
        yield "version", f"{account['registered_model']} {told.shown['version']}, run {told.shown['run_id']}"
    yield "base model", f"{account['base_model']} {adapter.get('base_digest', '')}".strip()
    if adapter:
        yield "adapter", f"{adapter.get('digest')}, best epoch {adapter.get('best_epoch')}"
        yield (
            "losses",
            f"train {_three(adapter.get('train_loss'))}, dev {_three(adapter.get('eval_loss'))} nats a token",
        )
    if parity:
        yield "parity", "shown" if parity.get("passed") else f"not shown: {parity.get('differences')}"
    yield "source", account["data"]["source"]
    yield "train pairs", str((evidence.get("train") or {}).get("digest", account["data"]["train_digest"]))
    yield "judge", " and ".join([account["judge"], *account["other_judges"]])
    yield "generator", account["generator"]
    yield from ((f"{role} prompt", source) for role, source in account["prompts"].items())


def _three(number: float | None) -> str:
    """A loss as people read it; one that diverged is none."""
    return "-" if number is None else f"{number:.3f}"


def dollars(dollars: float | None) -> str:
    if dollars is None:
        return "-"
    return f"${dollars:,.2f}" if dollars >= 0.005 or dollars == 0 else "under $0.01"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
