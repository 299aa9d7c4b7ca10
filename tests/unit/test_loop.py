"""The pipeline with a world of three fakes: what is asked of the stages, in which order, and when it ends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.ledger import Entry, Ledger
from mlflow_llamaduo.core.records import Adapter, Comparison, Grown, Judgement, PairSet, Rejected, Response, Version
from mlflow_llamaduo.core.rounds import Round, Split, State
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.loop import Outcome, Stages, align
from mlflow_llamaduo.parity import Checked
from mlflow_llamaduo.registry import Registry
from mlflow_llamaduo.tracking import Tracker
from tests.unit.builders import adapter, checked, pair, pairs, project, verdict

SPLIT = Split(pairs(6, "train"), pairs(2, "dev"), pairs(3, "test"))
Call = tuple[str, int | str]


@dataclass
class World:
    """Stages, tracker and registry in memory. The base model scores 40, round n the n-th of `scores`."""

    scores: list[float]
    accounts: list[int] = field(default_factory=list)
    broken: set[Call] = field(default_factory=set)  # what raises BudgetError
    killed: set[Call] = field(default_factory=set)  # what dies
    done: list[Call] = field(default_factory=list)
    trained_on: dict[int, tuple[PairSet, PairSet]] = field(default_factory=dict)
    seeds: dict[int, tuple[PairSet, PairSet]] = field(default_factory=dict)
    failed: dict[int, dict[str, float]] = field(default_factory=dict)
    prompts: list[PairSet] = field(default_factory=list)
    recorded: list[Round] = field(default_factory=list)
    baselines: dict[str, float] = field(default_factory=dict)
    champion: float | None = None  # its score
    repeats: dict[int | str, int] = field(default_factory=dict)
    against: dict[int | str, Against | None] = field(default_factory=dict)
    opponents: list[tuple[str, str]] = field(default_factory=list)
    registered: list[tuple[int, bool]] = field(default_factory=list)
    promoted: list[Version] = field(default_factory=list)

    def align(self, journal: Journal, **settings: Any) -> Outcome:
        return align(limited(**settings), self.stages(), journal)

    def stages(self) -> Stages:
        return Stages(
            collect=self.collect,
            finetune=self.finetune,
            pack=self.pack,
            infer=self.infer,
            baseline=self.baseline,
            judge=self.judge,
            judge_by_others=lambda responses, where: (),
            compare=self.compare,
            reference=lambda responses: {"exact_match": 12.5},
            synthesize=self.synthesize,
            tracker=cast(Tracker, _Tracker(self)),
            registry=cast(Registry, _Registry(self)),
        )

    def do(self, stage: str, number: int | str) -> None:
        if (stage, number) in self.broken:
            raise BudgetError("the budget is used up")
        if (stage, number) in self.killed:
            raise KeyboardInterrupt
        self.done.append((stage, number))

    def collect(self) -> Split:
        self.do("collect", "base")
        return SPLIT

    def finetune(self, train: PairSet, dev: PairSet, number: int) -> Adapter:
        self.do("finetune", number)
        self.trained_on[number] = train, dev
        return adapter(f"a{number}", seconds=1800.0)

    def pack(self, trained: Adapter, dev: PairSet, number: int) -> Checked:
        assert dev == SPLIT.dev
        self.do("pack", number)
        return checked(trained.digest)

    def infer(self, trained: Adapter, prompts: PairSet, where: int | str) -> tuple[Response, ...]:
        self.do("steer" if prompts == SPLIT.dev else "infer", where)
        if prompts != SPLIT.dev:
            self.prompts.append(prompts)
        return tuple(Response(p.id, 0, p.instruction, p.response, f"text {where}", 3) for p in prompts)

    def baseline(self, name: str, state: State) -> tuple[Response, ...]:
        self.do("infer", name)
        if name == "champion" and self.champion is None:
            return ()
        return tuple(Response(p.id, 0, p.instruction, p.response, f"text {name}", 3) for p in state.test)

    def judge(
        self, responses: tuple[Response, ...], where: int | str, repeats: int, against: Against | None
    ) -> tuple[Judgement, ...]:
        self.do("judge", where)
        self.repeats[where] = repeats
        self.against[where] = against
        known = {"base": 40.0, "few_shot": 45.0, "service_llm": 90.0, "champion": self.champion or 0.0}
        value = known[where] if isinstance(where, str) else self.scores[where]
        return tuple(verdict(r.id, value, repeat=repeat) for r in responses for repeat in range(min(2, repeats)))

    def compare(
        self, responses: tuple[Response, ...], opponent: str, texts: Mapping[str, str], where: int | str
    ) -> tuple[Comparison, ...]:
        self.do("compare", where)
        self.opponents.append((opponent, texts[responses[0].id]))
        return tuple(Comparison(r.id, opponent, "judge", first, "win") for r in responses for first in (True, False))

    def synthesize(self, state: State, failed: Mapping[str, float], number: int) -> Grown:
        self.do("synthesize", number)
        self.seeds[number] = state.train, state.test
        self.failed[number] = dict(failed)
        return Grown(pairs(4, f"new{number}x", source=f"synthetic/{number}").pairs, (Rejected(pair(), "leak"),))


@dataclass
class _Registry:
    world: World

    def register(
        self,
        trained: Adapter,
        scorecard: Scorecard,
        decision: Any,
        *,
        checked: Checked,
        against: Any,
        train: PairSet,
        run_id: str,
    ) -> Version:
        assert checked.digest == trained.digest, "what is registered is not what was checked"
        number = int(trained.digest.removeprefix("a"))
        self.world.do("register", number)
        self.world.registered.append((len(train), decision.passed))
        return Version("llamaduo-test", number + 1, run_id)

    @property
    def champion(self) -> tuple[int, Adapter] | None:
        return None if self.world.champion is None else (7, adapter("champion"))

    def promote(self, version: Version) -> bool:
        self.world.do("promote", version.number - 1)
        self.world.promoted.append(version)
        return True


@dataclass
class _Tracker:
    world: World

    def baseline(self, name: str, called: str, card: Scorecard, judged: Any, state: Any) -> None:
        assert called == ("champion-7" if name == "champion" else name)
        self.world.baselines[name] = card.precision.value

    @contextmanager
    def round(self, number: int) -> Iterator[Any]:
        def record(finished: Round, *_: Any) -> None:
            self.world.do("record", number)
            self.world.recorded.append(finished)

        yield SimpleNamespace(run_id=f"run{number}", record=record)

    def account(self, state: State) -> None:
        self.world.accounts.append(len(state.rounds))

    def ledger(self, number: int) -> Ledger:
        return (Entry(f"round {number}", "judge", 0.5 * (number + 1)), Entry(f"round {number}", "train", 1.0))


def limited(rounds: int = 3, gate: float = 70.0, **limits: Any) -> Project:
    return project(
        gate={"by": "mean", "precision_mean": gate},
        limits={"rounds": rounds, **limits},
        finetune={"usd_per_hour": 2.0},
        baselines={"few_shot": 0, "service_llm": False},
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, "f")


ROUND_0 = [("finetune", 0), ("pack", 0), ("infer", 0), ("judge", 0), ("register", 0), ("record", 0)]
ROUND_1 = [
    ("steer", 1),
    ("synthesize", 1),
    ("finetune", 1),
    ("pack", 1),
    ("infer", 1),
    ("judge", 1),
    ("register", 1),
    ("record", 1),
]


def test_a_model_that_passes_is_promoted_and_the_loop_stops(journal: Journal) -> None:
    world = World([60, 80, 90])
    outcome = world.align(journal)

    assert outcome.stop == "passed"
    assert world.done == [
        ("collect", "base"),
        ("infer", "base"),
        ("judge", "base"),
        *ROUND_0,
        *ROUND_1,
        ("promote", 1),
    ]
    assert world.promoted == [Version("llamaduo-test", 2, "run1")]
    assert world.registered == [(6, False), (10, True)]


def test_a_model_that_passes_at_once_costs_no_synthesis(journal: Journal) -> None:
    world = World([80])

    assert world.align(journal).stop == "passed"
    assert world.seeds == {}


def test_a_model_that_never_passes_ends_at_the_round_limit_with_no_synthesis_after_the_last_round(
    journal: Journal,
) -> None:
    world = World([50, 55, 60])
    outcome = world.align(journal)

    assert (outcome.stop, outcome.state.number) == ("rounds", 3)
    assert [number for stage, number in world.done if stage == "synthesize"] == [1, 2]
    assert world.done[-1] == ("record", 2)
    assert world.promoted == []


def test_scores_that_rise_no_more_end_as_a_plateau(journal: Journal) -> None:
    outcome = World([60, 60.5, 60.2, 99]).align(journal, rounds=9, plateau_rounds=2, plateau_points=1.0)

    assert (outcome.stop, outcome.state.number) == ("plateau", 3)


def test_the_training_set_grows_from_train_alone_and_nothing_held_out_gets_into_it(journal: Journal) -> None:
    world = World([50, 55, 60])
    world.align(journal)
    held_out = {p.id for p in (*SPLIT.dev, *SPLIT.test)}

    assert [len(train) for train, _ in world.trained_on.values()] == [6, 10, 14]
    assert world.trained_on[0][0] == SPLIT.train
    for number, (seeds, test) in world.seeds.items():
        assert seeds == world.trained_on[number - 1][0]
        assert test == SPLIT.test
    for train, dev in world.trained_on.values():
        assert train.pairs[:6] == SPLIT.train.pairs
        assert not held_out & {p.id for p in train}
        assert dev == SPLIT.dev


def test_every_model_answers_the_same_test_prompts_the_base_model_first(journal: Journal) -> None:
    world = World([50, 55, 60])
    outcome = world.align(journal)

    assert world.prompts == [SPLIT.test] * 3
    assert world.baselines == {"base": 40}
    assert outcome.state.baselines["base"].precision.value == 40


def test_the_gate_may_ask_for_a_gain_over_the_base_model(tmp_path: Path) -> None:
    def outcome(gain: float) -> str:
        asked = project(gate={"precision_over_base": gain, "by": "mean"}, limits={"rounds": 1})
        return align(asked, World([60]).stages(), Journal(tmp_path, f"{gain}")).stop

    assert (outcome(20), outcome(21)) == ("passed", "rounds")


def measured(gate: Any, champion: float | None = None, folder: Path | None = None, **sections: Any) -> World:
    """One round that scores 60 under a gate."""
    world = World([60], champion=champion)
    assert folder
    asked = project(gate=gate, limits={"rounds": 1}, **sections)
    align(asked, world.stages(), Journal(folder, "f"))
    return world


DEFAULT = {"by": "lower_bound"}


def test_the_default_gate_measures_base_few_shot_service_llm_and_champion_in_this_order(tmp_path: Path) -> None:
    world = measured(DEFAULT, champion=55, folder=tmp_path)

    assert list(world.baselines) == ["service_llm", "base", "few_shot", "champion"]
    assert [where for stage, where in world.done if stage == "judge"] == [*world.baselines, 0]


def test_without_a_champion_nothing_is_asked_about_one(tmp_path: Path) -> None:
    world = measured(DEFAULT, folder=tmp_path)

    assert "champion" not in world.baselines
    assert ("judge", "champion") not in world.done


def test_what_the_gate_holds_nothing_against_is_judged_twice_and_no_more(tmp_path: Path) -> None:
    world = measured(DEFAULT, champion=55, folder=tmp_path)

    assert world.repeats == {"base": 2, "few_shot": 2, "service_llm": 10, "champion": 10, 0: 10}


def test_only_a_rounds_judging_may_stop_when_it_is_settled(tmp_path: Path) -> None:
    world = measured(DEFAULT, champion=55, folder=tmp_path)

    held = {where: set(against.baselines) for where, against in world.against.items() if against}
    assert held == {0: set(world.baselines)}


def test_the_champion_is_measured_anew_when_a_run_goes_on_and_the_others_are_not(tmp_path: Path) -> None:
    again = World([60, 60], champion=58)
    journal = Journal(tmp_path, "f")
    align(project(gate=DEFAULT, limits={"rounds": 1}), World([60], champion=50).stages(), journal)
    outcome = align(project(gate=DEFAULT, limits={"rounds": 2}), again.stages(), journal)

    assert list(again.baselines) == ["champion"]
    assert outcome.state.baselines["champion"].precision.value == 58


@pytest.mark.parametrize(
    ("opponent", "text"), [("reference", "answer to test0w"), ("service_llm", "text service_llm")]
)
def test_a_gate_of_a_win_rate_has_each_response_compared(tmp_path: Path, opponent: str, text: str) -> None:
    world = measured({"by": "mean", f"win_rate_over_{opponent}": 50}, folder=tmp_path)

    assert world.opponents == [(opponent, text)]
    assert world.registered == [(6, True)]


def test_there_is_no_comparison_with_a_champion_that_there_is_not(tmp_path: Path) -> None:
    world = measured({"win_rate_over_champion": 50}, folder=tmp_path)

    assert world.opponents == []
    assert world.registered == [(6, True)]


def test_calls_saved_and_reference_metrics_are_the_rounds(tmp_path: Path) -> None:
    world = measured(DEFAULT, folder=tmp_path)
    (finished,) = world.recorded

    assert finished.calls_saved == 3 * (10 - 2)
    assert finished.reference == {"exact_match": 12.5}


def test_a_round_is_recorded_with_its_rows_and_dollars(journal: Journal) -> None:
    world = World([50, 55, 60])
    outcome = world.align(journal)

    assert tuple(world.recorded) == outcome.state.rounds
    assert [(r.number, r.train_rows, r.kept, r.rejected) for r in world.recorded] == [
        (0, 6, 0, 0),
        (1, 10, 4, 1),
        (2, 14, 4, 1),
    ]
    assert world.accounts == [1, 2, 3], "one that is stopped has an account of the rounds before"
    assert [r.service_llm_usd for r in world.recorded] == [0.5, 1.0, 1.5]
    assert {r.training_usd for r in world.recorded} == {1.0}
    assert [r.version.run_id for r in world.recorded] == ["run0", "run1", "run2"]


@pytest.mark.parametrize("call", [("synthesize", 1), ("judge", 1)])
def test_a_budget_that_ends_within_a_round_keeps_the_rounds_before_it(journal: Journal, call: Call) -> None:
    world = World([50, 55, 60], broken={call})
    outcome = world.align(journal)

    assert (outcome.stop, outcome.state.number) == ("budget", 1)
    assert "used up" in outcome.detail
    assert outcome.state.train == SPLIT.train
    assert journal.entry().state == outcome.state


def test_a_budget_that_ends_before_the_first_round_is_an_outcome_as_well(journal: Journal) -> None:
    outcome = World([50], broken={("judge", "base")}).align(journal)

    assert (outcome.stop, outcome.state.number) == ("budget", 0)
    assert outcome.state.test == SPLIT.test


@pytest.mark.parametrize("call", [("synthesize", 1), ("finetune", 1), ("pack", 1), ("judge", 1), ("register", 1)])
def test_a_run_that_died_goes_on_with_its_unfinished_round_and_repeats_no_other(tmp_path: Path, call: Call) -> None:
    with pytest.raises(KeyboardInterrupt):
        World([50, 55, 60], killed={call}).align(Journal(tmp_path, "f"))
    again = World([50, 55, 60])
    outcome = again.align(Journal(tmp_path, "f"))

    assert again.done[: len(ROUND_1)] == ROUND_1
    assert again.baselines == {}
    whole = World([50, 55, 60]).align(Journal(tmp_path, "whole"))
    assert outcome.stop == whole.stop
    assert outcome.state.train == whole.state.train
    assert [r.scorecard for r in outcome.state.rounds] == [r.scorecard for r in whole.state.rounds]


@pytest.mark.parametrize("call", [("record", 0), ("promote", 0)])
def test_a_run_that_died_after_its_gate_was_passed_is_not_held_against_its_own_version(
    journal: Journal, call: Call
) -> None:
    with pytest.raises(KeyboardInterrupt):
        World([80], killed={call}).align(journal)
    again = World([80])
    outcome = again.align(journal)

    assert (outcome.stop, outcome.state.number) == ("passed", 1)
    assert again.promoted == [Version("llamaduo-test", 1, "run0")]
    assert "champion" not in again.baselines


def test_a_finished_alignment_does_nothing_more(journal: Journal) -> None:
    World([80]).align(journal)
    again = World([80])

    assert again.align(journal).stop == "passed"
    assert again.done == [("promote", 0)]  # which may be repeated


def test_a_higher_round_limit_goes_on_from_where_the_lower_one_stopped(journal: Journal) -> None:
    World([50, 55]).align(journal, rounds=1)
    again = World([50, 55])
    outcome = again.align(journal, rounds=2)

    assert again.done == ROUND_1
    assert (outcome.stop, outcome.state.number) == ("rounds", 2)
