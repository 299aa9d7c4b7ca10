"""All that judges an alignment, by the offline stand-in: how often it is asked, and what is found again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_llamaduo.asking import refuse_mostly_failed
from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.records import TaskPrompt
from mlflow_llamaduo.core.rounds import Where
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.jury import Jury
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from tests.unit.builders import card, project, response

PROMPTS = {"judge": TaskPrompt("closed_qa", "Judge."), "synthesize": TaskPrompt("closed_qa", "Write.")}
RESPONSES = tuple(
    response(text, pair_id=f"p{number:02d}", sample=sample)
    for number in range(8)
    for sample, text in enumerate(["Arn", f"Bel {number}"])
)
BESIDE = Against({"base": card(20, prompts=8, judge="offline/judge")})


class Court:
    """A jury, and the calls that it has made."""

    def __init__(self, folder: Path, store: ReplyStore, **sections: Any) -> None:
        self.models: list[ServiceLLM] = []
        self.said: list[str] = []
        self._store = store
        asked = project(**{"gate": {"precision_over_base": 5}, **sections})
        self.jury = Jury(asked, Journal(folder, "f"), PROMPTS, self._llm, self.said.append)

    def _llm(self, llm: ServiceModel, where: Where, stage: str, trace_share: float) -> ServiceLLM:
        purpose = Purpose("f", f"{where}: {stage}")
        self.models.append(ServiceLLM(llm, store=self._store, budget=Budget(1.0), purpose=purpose))
        return self.models[-1]

    @property
    def calls(self) -> int:
        return sum(model.meter.calls for model in self.models)


@pytest.fixture
def court(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Court]]:
    monkeypatch.chdir(tmp_path)
    with ReplyStore(":memory:") as store:
        yield lambda **sections: Court(tmp_path, store, **sections)


def test_a_judge_without_noise_is_settled_after_two_judgings_and_says_what_that_saved(
    court: Callable[..., Court],
) -> None:
    one = court()
    judged = one.jury.judge(RESPONSES, 0, 10, BESIDE)

    assert len(judged) == 2 * len(RESPONSES)
    assert one.said[-1] == "round 0: the decision is settled: 128 of 160 judgings saved"


@pytest.mark.parametrize("more", [{"judging": {"adaptive": False}}, {}])
def test_without_a_gate_to_settle_all_judgings_are_asked(court: Callable[..., Court], more: dict[str, Any]) -> None:
    judged = court(**more).jury.judge(RESPONSES, 0, 5, BESIDE if more else None)

    assert len(judged) == 5 * len(RESPONSES)


def test_what_is_judged_is_found_again_and_another_gate_asks_for_nothing_twice(court: Callable[..., Court]) -> None:
    first, again, other = court(), court(), court(gate={"precision_mean": 40})
    judged = first.jury.judge(RESPONSES, 0, 10, BESIDE)

    assert again.jury.judge(RESPONSES, 1, 10, BESIDE) == judged
    assert again.calls == 0
    other.jury.judge(RESPONSES, 0, 10, BESIDE)
    assert other.calls == 0  # every reply was in the store


def test_only_responses_that_have_an_opponent_are_compared(court: Callable[..., Court]) -> None:
    texts = {r.id: "Arn" for r in RESPONSES[:6]}
    compared = court().jury.compare(RESPONSES, "service_llm", texts, 0)

    assert [c.response_id for c in compared] == [r.id for r in RESPONSES[:6] for _ in range(2)]
    assert {c.outcome for c in compared if c.response_id.endswith("/1")} == {"loss"}


def test_reference_metrics_are_those_of_the_task_or_those_that_are_named(court: Callable[..., Court]) -> None:
    assert court(task="classification").jury.reference(RESPONSES) == {"label_accuracy": 50.0, "exact_match": 50.0}
    assert court(judging={"metrics": ["exact_match"]}).jury.reference(RESPONSES) == {"exact_match": 50.0}


def test_a_judge_that_mostly_failed_is_no_result() -> None:
    with ReplyStore(":memory:") as store:
        llm = ServiceLLM(
            ServiceModel(model="offline/judge"), store=store, budget=Budget(1.0), purpose=Purpose("f", "s")
        )
        llm.meter.failed = 5
        refuse_mostly_failed(llm, 10, "judgings", ["no reply"])
        llm.meter.failed = 6
        with pytest.raises(StageError, match=r"failed 6 of 10 judgings \(no reply\)"):
            refuse_mostly_failed(llm, 10, "judgings", ["no reply"])
