"""Values for tests, with what the test at hand does not care about filled in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.gate import Decision, RuleResult
from mlflow_llamaduo.core.ledger import Entry
from mlflow_llamaduo.core.parity import FLOAT32, Facts, Parity
from mlflow_llamaduo.core.records import Adapter, Message, Pair, PairSet, Response, Unjudged, Verdict, Version
from mlflow_llamaduo.core.rounds import Round
from mlflow_llamaduo.core.rules import GateRule
from mlflow_llamaduo.core.scoring import Scorecard, Scored
from mlflow_llamaduo.parity import Checked


def pair(instruction: str = "Which town?", response: str = "Arn", **more: Any) -> Pair:
    return Pair((Message("user", instruction),), response, **more)


def pairs(count: int, name: str = "p", **more: Any) -> PairSet:
    """Pairs that share no word with each other."""
    texts = [" ".join(f"{name}{number}w{word}" for word in range(12)) for number in range(count)]
    return PairSet(tuple(pair(text, f"answer to {text[:6]}", **more) for text in texts))


def response(text: str = "Arn", *, pair_id: str = "p0", sample: int = 0) -> Response:
    return Response(pair_id, sample, "Which town?", "Arn", text, completion_tokens=3)


def verdict(response_id: str, precision: float, **more: Any) -> Verdict:
    return Verdict(
        **{"judge": "judge", "repeat": 0, "similarity": precision, **more},
        response_id=response_id,
        precision=precision,
    )


def unjudged(response_id: str, **more: Any) -> Unjudged:
    return Unjudged(**{"judge": "judge", "repeat": 0, "reason": "no reply", **more}, response_id=response_id)


def card(precision: float = 80.0, similarity: float = 80.0, prompts: int = 8, **more: Any) -> Scorecard:
    """One response to each prompt, all of the same scores."""
    rows = tuple(Scored(f"p{number:02d}/0", similarity, precision, 10) for number in range(prompts))
    known = {"judge": "judge", "responses": prompts, "judgings": 10 * prompts, "unjudged": 0, **more}
    return Scorecard(prompts=prompts, scored=rows, **known)


def scores(values: Mapping[str, Sequence[float]], **more: Any) -> Scorecard:
    """A scorecard of responses by prompt: precision as given, similarity the same."""
    rows = [
        Scored(f"{prompt}/{sample}", value, value, 10, **more)
        for prompt, own in values.items()
        for sample, value in enumerate(own)
    ]
    return Scorecard("judge", len(values), len(rows), 10 * len(rows), 0, tuple(rows))


def decision(*, passed: bool = True) -> Decision:
    value = 80.0 if passed else 60.0
    return Decision((RuleResult(GateRule("precision_mean", 70), value, value - 5, value + 5, 8, passed),))


def round_(number: int = 0, precision: float = 80.0, *, passed: bool = False) -> Round:
    return Round(
        number,
        Version("llamaduo-test", number + 1, f"run{number}"),
        card(precision),
        decision(passed=passed),
        train_rows=40,
        kept=7,
        rejected=3,
        seconds=12.0,
        ledger=(
            Entry(f"round {number}", "judge", 0.5, 3.0, 80, 9000, 700),
            Entry(f"round {number}", "train", 0.25, 60),
        ),
    )


def adapter(digest: str = "a0", **more: Any) -> Adapter:
    known = {"path": "nowhere", "base_model": "base", "base_digest": "b0", "tokens": 1000, "seconds": 10.0}
    losses = {"train_loss": 1.0, "eval_loss": 1.1, "best_epoch": 1.0}
    return Adapter(digest=digest, **{**known, **losses, **more})


def checked(digest: str = "a0", folder: str = "nowhere") -> Checked:
    facts = Facts("base", "b0", "w0", "rank 4", "t0", "k0", 2, "float32", "none")
    return Checked(folder, digest, Parity((), {"distance": 0.0}, FLOAT32, 4, facts, facts))


def project(**sections: Any) -> Project:
    known = {"task": "test", "folder": Path("nowhere"), "profile": "test", "base_model": "base", "gate": 70}
    return Project.model_validate({**known, **sections})
