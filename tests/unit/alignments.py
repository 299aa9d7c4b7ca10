"""An alignment as the report reads it, without MLflow: two rounds, and answers that say what a test wants."""

from dataclasses import replace
from typing import Any

from mlflow_llamaduo.core.beside import Answer, Asked
from mlflow_llamaduo.core.ledger import Dollars, Entry, Planned
from mlflow_llamaduo.core.records import PairSet, TaskPrompt
from mlflow_llamaduo.core.rounds import Round, Split, State
from mlflow_llamaduo.coverage.gathered import Gathered
from mlflow_llamaduo.coverage.source import Report
from mlflow_llamaduo.journal import Entry as Known
from mlflow_llamaduo.report.read import Model, Score, Told
from mlflow_llamaduo.tracking.account import account_of
from tests.unit.builders import adapter, card, pairs, project, round_

TRAIN, TEST = pairs(20), pairs(4, "test")
PLANNED = (
    Planned("round 0: train", "1 x A100-80G", 0, 0, 0, Dollars(0.1, 0.3, 0.6), 4.0),
    Planned("round 0: judge", "gpt", 80, 8000, 800, Dollars(0.4, 0.5, 0.9), 2.0),
)
LEDGER = (Entry("base", "judge", 0.25, 2.0, 8, 900, 70), *round_(0).ledger, *round_(1).ledger)


def account(*, passed: bool = False, **changes: Any) -> dict[str, Any]:
    """Two rounds, three baselines."""
    state = State(TRAIN, PairSet(()), TEST)
    for name, value in (("base", 40.0), ("few_shot", 45.0), ("service_llm", 90.0)):
        state = state.with_baseline(name, card(value, value))
    rounds: list[Round] = [
        round_(0, 60.0),
        replace(round_(1, 72.0, passed=passed), others=(card(50, judge="other"),)),
    ]
    for one in rounds:
        state = state.after(one, TRAIN, adapter())
    gathered = Gathered(
        Split(TRAIN, PairSet(()), TEST, pairs(1, "left")),
        Report("pairs.jsonl", 30, 25, {"messages": 28}, {"no_answer": 2, "duplicate": 3}, {"email": 1}, {}),
        (),
    )
    found = account_of(
        project(),
        state,
        Known(
            run_id="parent",
            round_run_ids=("child0", "child1"),
            stop="passed" if passed else "rounds",
            planned=PLANNED,
        ),
        gathered=gathered,
        prompts={"judge": TaskPrompt("test", "Judge.", "prompts:/judge/1")},
        ledger=LEDGER,
        detail="",
    )
    return {**found, **changes}


def model(value: float, text: str = "Arn", count: int = 8) -> Model:
    """Answers to `count` prompts with scores around a value."""
    scores = tuple(Score(f"p{n:02d}/0", value + n % 5, value - n % 3) for n in range(count))
    answers = {
        score.response_id.partition("/")[0]: Asked(
            f"Which town? {text}", f"The town. {text}", (Answer(text, score.precision, score.similarity),)
        )
        for score in scores
    }
    return Model({"judge": scores, "other": scores}, answers)


def told(text: str = "Arn", *, passed: bool = False, **changes: Any) -> Told:
    """The alignment; `text` is what every answer, prompt, reference and rejected row says."""
    known = account(passed=passed)
    rejected = ({"reason": "leak", "detail": text, "instruction": text, "response": text},) * 3
    values: dict[str, Any] = {
        "run_id": "parent",
        "experiment_id": "1",
        "began_ms": 1_700_000_000_000,
        "ended_ms": 1_700_000_600_000,
        "account": known,
        "config": {"task": "test", "note": text},
        "metrics": {},
        "shown": known["rounds"][-1],
        "models": {
            "base": model(40, text),
            "few_shot": model(45, text),
            "service_llm": model(90, text),
            "round 1": model(72, text),
        },
        "rejected": {1: rejected},
        "bad_rows": ({"where": text, "reason": "no_answer"},),
        "evidence": {
            "adapter": {"digest": "a1", "best_epoch": 2.0},
            "parity": {"passed": True},
            "train": {"digest": "t"},
        },
        "notes": (),
        **changes,
    }
    return Told(**values)
