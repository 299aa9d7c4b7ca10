"""The pipeline, as code (paper, Figure 1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.adaptive import FIRST
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.gate import decide
from mlflow_llamaduo.core.pairwise import tally
from mlflow_llamaduo.core.records import Adapter, Comparison, Grown, Judgement, PairSet, Response
from mlflow_llamaduo.core.rounds import Judged, Round, Split, State, StopReason, Where, stop_reason
from mlflow_llamaduo.core.scoring import score
from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.parity import Checked
from mlflow_llamaduo.registry import Registry
from mlflow_llamaduo.synthesis import failures
from mlflow_llamaduo.tracking import Tracker

Responses = tuple[Response, ...]


@dataclass(frozen=True, slots=True)
class Stages:
    """What touches the world. A stage may be called again for the same inputs and gives the same value."""

    collect: Callable[[], Split]
    finetune: Callable[[PairSet, PairSet, int], Adapter]
    pack: Callable[[Adapter, PairSet, int], Checked]
    infer: Callable[[Adapter, PairSet, Where], Responses]
    baseline: Callable[[str, State], Responses]
    judge: Callable[[Responses, Where, int, Against | None], tuple[Judgement, ...]]
    judge_by_others: Callable[[Responses, Where], tuple[tuple[Judgement, ...], ...]]
    compare: Callable[[Responses, str, Mapping[str, str], Where], tuple[Comparison, ...]]
    reference: Callable[[Responses], dict[str, float]]
    synthesize: Callable[[State, Mapping[str, float], int], Grown]
    tracker: Tracker
    registry: Registry


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the loop stopped, and why; `detail` is what the budget had to say."""

    state: State
    stop: StopReason
    detail: str = ""


def align(project: Project, stages: Stages, journal: Journal) -> Outcome:
    """Fine-tune, judge and grow the training set until the local model passes the gate or a limit stops it.

    Every finished stage is in the journal, so a run that died goes on where it was and pays for nothing twice.
    """
    state = journal.entry().state or State.begin(stages.collect())
    try:
        if stop_reason(state, project.stops) is None:
            for name in project.baseline_names:
                state = _with_baseline(name, state, project, stages)
        while (stop := stop_reason(state, project.stops)) is None:
            state = _round(state, project, stages, journal)
            journal.update(state=state)
            stages.tracker.account(state)
    except BudgetError as error:
        return Outcome(state, "budget", str(error))
    if stop == "passed":  # only now: a run that dies must not find its own version as the champion to beat
        stages.registry.promote(state.rounds[-1].version)
    return Outcome(state, stop)


def _with_baseline(name: str, state: State, project: Project, stages: Stages) -> State:
    """A model on the same test prompts: what the rounds are compared with.

    The champion is looked for anew whenever a run begins: it may be another one by now. What the gate does not hold
    against anything is judged as often as shows the judge's noise, and no more.
    """
    if name in state.baselines and name != "champion":
        return state
    responses = stages.baseline(name, state)
    if not responses:
        return state.with_baseline(name, None)
    repeats = project.judging.repeats if name in project.gated_baselines else min(FIRST, project.judging.repeats)
    judgements = stages.judge(responses, name, repeats, None)
    card = score(judgements, responses)
    judged = Judged(responses, judgements, reference=stages.reference(responses))
    stages.tracker.baseline(name, _called(name, stages), card, judged, state)
    return state.with_baseline(name, card)


def _called(name: str, stages: Stages) -> str:
    """What a baseline's tables and traces are called: another champion has others."""
    champion = stages.registry.champion if name == "champion" else None
    return f"{name}-{champion[0]}" if champion else name


def _round(state: State, project: Project, stages: Stages, journal: Journal) -> State:
    number = state.number
    answers = {name: stages.baseline(name, state) for name in project.opponents if name != "reference"}
    journal.take_seconds()  # what was taken for the opponents' answers is no part of the round
    with stages.tracker.round(number) as log:
        # Growing opens a round, so that the last one pays for no pairs that nobody trains on.
        grown = _grow(state, stages) if number else Grown((), ())
        train = state.train.with_(grown.kept)

        adapter = stages.finetune(train, state.dev, number)
        checked = stages.pack(adapter, state.dev, number)  # what is not what was trained costs no judging
        responses = stages.infer(adapter, state.test, number)
        compared = {name: _compare(responses, name, answers, number, stages) for name in project.opponents}
        against = Against(state.baselines, {name: tally(own) for name, own in compared.items() if own})
        judgements = stages.judge(responses, number, project.judging.repeats, against)

        scorecard = score(judgements, responses)
        decision = decide(scorecard, project.rules, against)
        version = stages.registry.register(
            adapter, scorecard, decision, checked=checked, against=against, train=train, run_id=log.run_id
        )
        others = stages.judge_by_others(responses, number)

        judged = Judged(
            responses,
            tuple(judgement for own in (judgements, *others) for judgement in own),
            tuple(comparison for own in compared.values() for comparison in own),
            stages.reference(responses),
        )
        finished = Round(
            number=number,
            version=version,
            scorecard=scorecard,
            decision=decision,
            train_rows=len(train),
            kept=len(grown.kept),
            rejected=len(grown.rejected),
            seconds=journal.take_seconds(),
            ledger=stages.tracker.ledger(number),
            others=tuple(score(own, responses) for own in others),
            duels=tuple(against.duels.values()),
            calls_saved=len(responses) * project.judging.repeats - len(judgements),
            reference=judged.reference,
        )
        log.record(finished, state.baselines, adapter, train, grown, judged)
    return state.after(finished, train, adapter)


def _compare(
    responses: Responses, opponent: str, answers: Mapping[str, Responses], number: int, stages: Stages
) -> tuple[Comparison, ...]:
    """Each response with the opponent's answer to the same prompt; none where there is no champion."""
    if opponent == "reference":
        texts = {response.id: response.reference for response in responses}
    else:
        texts = {response.id: response.text for response in answers[opponent]}
    return stages.compare(responses, opponent, texts, number) if texts else ()


def _grow(state: State, stages: Stages) -> Grown:
    """New pairs like the train pairs, more of the kinds in which the last round's adapter failed on dev."""
    assert state.adapter is not None  # noqa: S101 - every round before this one has trained one
    answers = stages.infer(state.adapter, state.dev, state.number)
    return stages.synthesize(state, failures(answers), state.number)
