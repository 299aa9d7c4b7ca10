"""The pipeline, as code (paper, Figure 1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.gate import decide
from mlflow_llamaduo.core.records import Adapter, Grown, Judgement, PairSet, Response
from mlflow_llamaduo.core.rounds import BASE, Round, Split, State, StopReason, stop_reason
from mlflow_llamaduo.core.scoring import score
from mlflow_llamaduo.errors import BudgetError
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.registry import Registry
from mlflow_llamaduo.synthesis import failures
from mlflow_llamaduo.tracking import Tracker


@dataclass(frozen=True, slots=True)
class Stages:
    """What touches the world. A stage may be called again for the same inputs and gives the same value."""

    collect: Callable[[], Split]
    finetune: Callable[[PairSet, PairSet, int], Adapter]
    infer: Callable[[Adapter | None, PairSet, int], tuple[Response, ...]]
    judge: Callable[[tuple[Response, ...], int], tuple[Judgement, ...]]
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
        state = _with_baseline(state, stages)
        while (stop := stop_reason(state, project.stops)) is None:
            state = _round(state, project, stages, journal)
            journal.update(state=state)
    except BudgetError as error:
        return Outcome(state, "budget", str(error))
    return Outcome(state, stop)


def _with_baseline(state: State, stages: Stages) -> State:
    """The base model as it is, on the same test prompts: what the rounds must beat."""
    if "base" in state.baselines:
        return state
    judgements = stages.judge(stages.infer(None, state.test, BASE), BASE)
    baseline = score(judgements)
    stages.tracker.baseline(baseline, judgements, state)
    return state.with_baseline("base", baseline)


def _round(state: State, project: Project, stages: Stages, journal: Journal) -> State:
    number = state.number
    journal.take_seconds()
    with stages.tracker.round(number) as log:
        # Growing opens a round, so that the last one pays for no pairs that nobody trains on.
        grown = _grow(state, stages) if number else Grown((), ())
        train = state.train.with_(grown.kept)

        adapter = stages.finetune(train, state.dev, number)
        responses = stages.infer(adapter, state.test, number)
        judgements = stages.judge(responses, number)

        scorecard = score(judgements)
        decision = decide(scorecard, project.rules, state.baselines)
        version = stages.registry.register(adapter, scorecard, decision, train=train, run_id=log.run_id)
        if decision.passed:
            stages.registry.promote(version)

        finished = Round(
            number=number,
            version=version,
            scorecard=scorecard,
            decision=decision,
            train_rows=len(train),
            kept=len(grown.kept),
            rejected=len(grown.rejected),
            seconds=journal.take_seconds(),
            service_llm_usd=stages.tracker.service_llm_usd(number),
            training_usd=project.finetune.usd(adapter.seconds),
        )
        log.record(finished, adapter, train, grown, responses, judgements)
    return state.after(finished, train, adapter)


def _grow(state: State, stages: Stages) -> Grown:
    """New pairs like the train pairs, more of the kinds in which the last round's adapter failed on dev."""
    answers = stages.infer(state.adapter, state.dev, state.number - 1)
    return stages.synthesize(state, failures(answers), state.number)
