"""Which implementation stands behind which stage; the only module that knows them all."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlflow_llamaduo.asking import Say, budget
from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.ledger import Planned
from mlflow_llamaduo.core.records import Response, digest
from mlflow_llamaduo.core.rounds import Split, State, stop_reason
from mlflow_llamaduo.coverage.gathered import Gathered, told
from mlflow_llamaduo.desk import Desk
from mlflow_llamaduo.errors import LlamaDuoError
from mlflow_llamaduo.journal import HOME, Journal
from mlflow_llamaduo.jury import Jury
from mlflow_llamaduo.loop import Outcome, Stages, align
from mlflow_llamaduo.plan import plan_all
from mlflow_llamaduo.preflight import same_family
from mlflow_llamaduo.prompts import Prompts, registered, task_prompts
from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.registry import Registry
from mlflow_llamaduo.report.make import report
from mlflow_llamaduo.service_llm.client import ReplyStore
from mlflow_llamaduo.service_llm.store import REPLIES
from mlflow_llamaduo.service_llm.work import Account
from mlflow_llamaduo.tracking import OWN_RUN, Tracker, point_here, reached


def run(project: Project, gathered: Gathered, *, fresh: bool, say: Say) -> Outcome:
    """The whole alignment, from where it was left.

    Args:
        project: what to do.
        gathered: its coverage pairs, as `preflight.check` returned them.
        fresh: forget an earlier alignment with this configuration; its finished stages are still used.
        say: told one line for every stage that begins.

    Raises:
        LlamaDuoError: see `errors`.
    """
    prompts, parts = task_prompts(project), gathered.parts
    say(told(gathered.report))
    if warning := same_family(project):
        say(warning)
    if parts.left_out:
        say(f"{len(parts.left_out)} pairs are left out: they were test pairs before, or give one away")
    data = f"{parts.train.digest[:6]}{parts.test.digest[:6]}"
    asked = digest([prompt.text for prompt in prompts.values()])[:4]
    journal = Journal(HOME / project.task, f"{project.fingerprint}-{data}{asked}")
    with journal.locked():
        gathered.keep(HOME / project.task)
        if fresh:
            journal.forget()
        entry = journal.entry()
        stop = stop_reason(entry.state, project.stops) if entry.state else None
        if entry.state is not None and stop is not None and stop == entry.stop:
            say("this alignment is finished; --fresh begins it again")
            point_here(os.environ.get(OWN_RUN), entry.run_id, stop)
            return Outcome(entry.state, stop)
        if entry.state is not None or entry.run_id is not None:
            say(f"going on with MLflow run {entry.run_id}; what is finished is not done again")
        with reached(), stages(project, gathered, journal, prompts, say) as wired, wired.tracker.alignment():
            outcome = align(project, wired, journal)
            wired.tracker.finish(outcome.state, outcome.stop, outcome.detail)
            _report(wired.tracker.run_id, say)
    return outcome


@contextmanager
def stages(project: Project, gathered: Gathered, journal: Journal, prompts: Prompts, say: Say) -> Iterator[Stages]:
    """The real stages: every one looks in the journal before it does anything."""
    hush()
    base = resolve(project.base_model, say)
    say(f"base model {project.base_model}: {base.path} ({base.source})")
    store = ReplyStore(REPLIES)
    with ExitStack() as cleanup:
        cleanup.callback(store.close)
        prompts = registered(project, prompts, say)
        planned = _planned(project, gathered.parts, journal, store)
        likely_s = {row.stage: 60 * row.minutes for row in planned if row.minutes is not None}
        account = Account(store, budget(project), journal.fingerprint, likely_s)
        tracker = Tracker(project, gathered, journal, prompts, account.ledger)
        registry = Registry(project, journal.fingerprint)
        desk = Desk(project, journal, base, account, tracker, prompts, say, cleanup)
        jury = Jury(project, journal, prompts, desk.llm, say)

        def baseline(name: str, state: State) -> tuple[Response, ...]:
            champion = registry.champion if name == "champion" else None
            return desk.baseline(name, state, champion[1] if champion else None)

        if "champion" in project.baseline_names and registry.champion:  # one that is no good is told before all else
            say(f"champion: version {registry.champion[0]} of {project.registered_model}")
        yield Stages(
            collect=lambda: gathered.parts,
            finetune=desk.finetune,
            pack=desk.pack,
            infer=desk.infer,
            baseline=baseline,
            judge=jury.judge,
            judge_by_others=jury.judge_by_others,
            compare=jury.compare,
            reference=jury.reference,
            synthesize=desk.synthesize,
            tracker=tracker,
            registry=registry,
        )


def _report(run_id: str, say: Say) -> None:
    """A report that cannot be made is told, and makes no failure of an alignment that has ended."""
    try:
        _, size = report(run_id)
    except LlamaDuoError as error:
        say(f"there is no report: {error}\n(`llamaduo report --run {run_id}` tries again)")
    else:
        say(f"report: runs:/{run_id}/report.html, {size / 1000:,.0f} kB")


def _planned(project: Project, parts: Split, journal: Journal, store: ReplyStore) -> tuple[Planned, ...]:
    """What the stages are to take, as it was said before the first of them; more rounds are planned when they are."""
    known = journal.entry().planned
    names = {row.stage for row in known}
    planned = (*known, *(row for row in plan_all(project, parts, store.typical) if row.stage not in names))
    journal.update(planned=planned)
    return planned
