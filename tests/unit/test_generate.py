import json
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import Pair, PairSet, Rejected, TaskPrompt
from mlflow_llamaduo.core.redact import redact
from mlflow_llamaduo.errors import LlamaDuoError
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from mlflow_llamaduo.synthesis import Order, grow
from mlflow_llamaduo.synthesis.generate import synthesize
from mlflow_llamaduo.synthesis.prompt import SYSTEM, ask, read
from mlflow_llamaduo.synthesis.screen import Screen
from tests.unit.builders import pair, pairs

CLOSED_QA = TaskPrompt("closed_qa", SYSTEM)
ANYTHING = Screen(frozenset(), 10_000)


class Backwards:
    """A generator that answers in the opposite order, with pairs named after the call; some calls fail."""

    def __init__(self, failing: tuple[int, ...] = (), *, cut: bool = False) -> None:
        self.failing = failing
        self.cut = cut
        self.asked: list[dict[str, Any]] = []

    def complete_many(self, requests: Iterable[Request]) -> Iterator[tuple[int, Reply | Failure]]:
        self.asked = [json.loads(request.messages[-1]["content"]) for request in requests]
        for index, asked in reversed(list(enumerate(self.asked))):
            rows = [{"instruction": f"call {index} row {n}", "response": "a"} for n in range(asked["count"])]
            yield index, Failure("no reply") if index in self.failing else Reply(contents(*rows), 1, 1, 0.0, self.cut)

    @property
    def seeds(self) -> list[str]:
        return [asked["example"]["instruction"] for asked in self.asked]


def contents(*rows: Any) -> str:
    return json.dumps({"contents": rows})


def growing(
    llm: Backwards, train: PairSet, *, rows: int = 12, per_call: int = 3, batch: int = 1
) -> tuple[list[Pair], list[Rejected]]:
    order = Order(rows=rows, per_call=per_call, batch=batch, max_characters=10_000)
    grown = grow(train, order, test=PairSet(()), llm=cast(ServiceLLM, llm), done=lambda _: None)
    return list(grown.kept), list(grown.rejected)


@pytest.mark.parametrize(("rows", "per_call", "calls"), [(12, 3, 4), (10, 3, 4), (1, 10, 1), (5, 1, 5)])
def test_calls_are_as_many_as_the_rows_need(rows: int, per_call: int, calls: int) -> None:
    llm = Backwards()
    new, rejected = growing(llm, pairs(9), rows=rows, per_call=per_call)

    assert len(llm.asked) == calls
    assert [p.instruction for p in new] == [f"call {c} row {n}" for c in range(calls) for n in range(per_call)]
    assert rejected == []


def test_seeds_are_train_pairs_from_people_each_used_once_before_any_is_used_again() -> None:
    people, machine = pairs(4, "human"), pairs(4, "machine", source="synthetic/0")
    llm = Backwards()
    growing(llm, machine.with_(people), rows=30)

    known = sorted(p.instruction for p in people)
    assert sorted(llm.seeds[:4]) == sorted(llm.seeds[4:8]) == known
    assert set(llm.seeds[8:]) < set(known)


def test_another_batch_asks_for_other_pairs_and_the_same_one_for_the_same() -> None:
    first, again, second = Backwards(), Backwards(), Backwards()
    for llm, batch in ((first, 1), (again, 1), (second, 2)):
        growing(llm, pairs(30), rows=60, batch=batch)

    assert first.asked == again.asked
    assert first.seeds != second.seeds
    assert not {asked["batch"] for asked in first.asked} & {asked["batch"] for asked in second.asked}
    assert len({json.dumps(asked) for asked in first.asked}) == 20


def test_a_new_pair_says_where_it_is_from_and_has_its_seeds_category() -> None:
    new, _ = growing(Backwards(), pairs(3, category="closed_qa"), batch=7)

    assert {(p.source, p.category) for p in new} == {("synthetic/7", "closed_qa")}


def test_a_call_that_failed_is_one_rejection_and_the_others_are_kept() -> None:
    new, rejected = growing(Backwards(failing=(1,)), pairs(9))

    assert [p.instruction.split()[1] for p in new] == ["0"] * 3 + ["2"] * 3 + ["3"] * 3
    assert rejected == [Rejected(None, "malformed", "no reply")]


def test_the_last_pair_of_a_reply_that_was_cut_is_rejected() -> None:
    new, rejected = growing(Backwards(cut=True), pairs(2), rows=4, per_call=4)

    assert len(new) == 3
    assert [r.reason for r in rejected] == ["malformed"]


def test_progress_is_told_in_pairs() -> None:
    ticks: list[int] = []
    llm = cast(ServiceLLM, Backwards())
    synthesize(pairs(3).pairs, llm=llm, per_call=4, batch=1, screen=ANYTHING, done=ticks.append)

    assert ticks == [4, 4, 4]


def test_without_a_seed_the_error_is_one_for_the_user() -> None:
    with pytest.raises(LlamaDuoError):
        growing(Backwards(), PairSet(()))


def test_the_offline_teacher_writes_through_the_same_door() -> None:
    store = ReplyStore(":memory:")
    llm = ServiceLLM(
        ServiceModel(model="offline/teacher"), store=store, budget=Budget(0.0), purpose=Purpose("run", "round 1")
    )
    examples = pairs(3).pairs
    settings: dict[str, Any] = {"per_call": 4, "batch": 1, "screen": ANYTHING, "prompt": CLOSED_QA}
    new, rejected = synthesize(examples, llm=llm, done=lambda _: None, **settings)
    again, _ = synthesize(examples, llm=llm, done=lambda _: None, **settings)

    assert (len({p.id for p in new}), rejected) == (12, [])
    assert (again, store.count("run")) == (new, 3)
    store.close()


def test_new_pairs_and_rejected_ones_are_redacted_and_counted() -> None:
    class Chatty(Backwards):
        def complete_many(self, requests: Iterable[Request]) -> Iterator[tuple[int, Reply | Failure]]:
            for index, _ in enumerate(list(requests)):
                row = {
                    "instruction": f"Whom do I write to about mill number {index}?",
                    "response": "jane.roe@post.test",
                }
                meta = {"instruction": f"Q{index}", "response": "As an AI, I know jane.roe@post.test."}
                yield index, Reply(contents(row, meta), 1, 1, 0.0)

    order = Order(rows=2, per_call=2, batch=1, max_characters=999, redact=redact)
    grown = grow(pairs(3), order, test=PairSet(()), llm=cast(ServiceLLM, Chatty()), done=lambda _: None)

    assert [p.response for p in grown.kept] == ["<EMAIL_1>"]
    assert grown.figures["redacted_email"] == 1
    assert [r.reason for r in grown.rejected] == ["meta_text"]
    assert "jane.roe" not in str(grown)


# The prompt and the reply


@given(st.text(), st.text())
def test_the_example_stays_data_and_the_rules_stay_as_they_are(instruction: str, response: str) -> None:
    rules, data = ask(pair(instruction, response), count=4, batch=9)

    assert rules == {"role": "system", "content": SYSTEM}
    asked = {"task": "", "example": {"instruction": instruction, "response": response}, "count": 4, "batch": 9}
    assert json.loads(data["content"]) == asked


def reading(text: str) -> tuple[list[Pair], list[Rejected]]:
    return read(text, example=pair(category="c"), source="synthetic/1")


ROW = {"instruction": " Which river? ", "response": " Senna\n"}


@pytest.mark.parametrize(
    "text", [contents(ROW), f"```json\n{contents(ROW)}\n```", f"Of course!\n{contents(ROW)}", contents(ROW)[:-2]]
)
def test_pairs_are_read_out_of_any_wrapping_without_the_space_around_them(text: str) -> None:
    assert reading(text) == ([pair("Which river?", "Senna", category="c", source="synthetic/1")], [])


NO_PAIRS: list[Any] = [
    None, 7, "text", [], {}, {"instruction": "q"}, {"response": "a"}, {**ROW, "response": 7}, {**ROW, "response": ""},
    {**ROW, "instruction": " \n"}, {**ROW, "instruction": ["q"]},
]  # fmt: skip


@pytest.mark.parametrize("row", NO_PAIRS)
def test_a_row_that_is_no_pair_is_rejected_and_the_others_are_kept(row: Any) -> None:
    new, rejected = reading(contents(ROW, row, {"instruction": "q", "response": "a"}))

    assert [p.instruction for p in new] == ["Which river?", "q"]
    assert [r.reason for r in rejected] == ["malformed"]


@pytest.mark.parametrize("text", ["", "Sorry.", "{}", '{"contents": null}', '{"contents": {"a": 1}}', "[" * 20_000])
def test_a_reply_without_contents_is_one_rejection_that_quotes_it(text: str) -> None:
    new, (rejected,) = reading(text)

    assert (new, rejected.pair, rejected.reason) == ([], None, "malformed")
    assert repr(text[:80]) in rejected.detail


@given(st.text() | st.builds(contents, st.dictionaries(st.sampled_from(["instruction", "response"]), st.text())))
@example(contents({"instruction": "cut \ud83d", "response": "a"}))
def test_any_reply_gives_pairs_with_text_that_a_file_can_hold(text: str) -> None:
    new, _ = reading(text)

    for p in new:
        assert p.instruction.strip()
        assert p.response.strip()
        assert (p.instruction + p.response).encode()
