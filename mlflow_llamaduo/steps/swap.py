"""The swap: is similarity the same when reference and response trade places?

Each configured judge is asked for both orders of a few responses, one judging each, so that a judge is compared with
itself, whoever wrote the verdicts; the first order is mostly in the reply store. A judge that cannot be asked costs
the report that one figure, and the report says why.
"""

from dataclasses import replace

from mlflow_llamaduo import preflight
from mlflow_llamaduo.asking import Say, asking, budget
from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.agreement import Spread, Swap, traded
from mlflow_llamaduo.core.records import Judgement, Response, TaskPrompt, Unjudged, Verdict, digest
from mlflow_llamaduo.core.trust import Report
from mlflow_llamaduo.errors import BudgetError, ConfigError
from mlflow_llamaduo.judging import judge
from mlflow_llamaduo.plan import approve, plan_judging
from mlflow_llamaduo.prompts import task_prompts
from mlflow_llamaduo.service_llm.client import Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.store import REPLIES


def swaps(project: Project, report: Report, responses: list[Response], say: Say, *, yes: bool) -> tuple[Swap, ...]:
    """Ask every judge of the project that can be asked.

    Args:
        project: its judges, its judge's prompt, and its caps.
        report: what is known of the judges' repeats.
        responses: those to ask about.
        say: told of progress.
        yes: go on though it is likely to be dear.

    Raises:
        ConfigError: it is likely to cost more than `limits.ask_above_usd`, and nobody said `--yes`.
    """
    # Nobody waits a day for forty judgings: not in a batch.
    judges = [llm.model_copy(update={"batch": False}) for llm in project.service_llm.judges]
    problems = {llm: " ".join(preflight.missing(llm)) for llm in judges}
    able = [llm for llm, problem in problems.items() if not problem]
    prompt = task_prompts(project)["judge"]
    found = [Swap(llm.model, why=problem) for llm, problem in problems.items() if problem]
    if not able:
        return tuple(found)
    both = [*responses, *(replace(each, reference=each.text, text=each.reference) for each in responses)]
    with ReplyStore(REPLIES) as store:
        planned = [plan_judging(_once(project, llm), both, store.typical).usd.likely for llm in able]
        approve(sum(planned), project, yes=yes)
        for configured in able:
            purpose = Purpose(f"judge-report-{digest(configured.identity)}", "judge")
            llm = ServiceLLM(configured, store=store, budget=budget(project), purpose=purpose)
            found.append(_swap(llm, both, prompt, report, say))
    return tuple(found)


def _once(project: Project, llm: ServiceModel) -> Project:
    """The project with one judge, who is asked once; a plan is made for a project."""
    judging = project.judging.model_copy(update={"repeats": 1})
    roles = project.service_llm.model_copy(update={"judge": llm})
    return project.model_copy(update={"judging": judging, "service_llm": roles})


def _swap(llm: ServiceLLM, both: list[Response], prompt: TaskPrompt, report: Report, say: Say) -> Swap:
    try:
        with asking(f"swap: {llm.model}", len(both), "judging", llm, len(both), say) as progress:
            judged = judge(both, llm=llm, repeats=1, done=progress.update, prompt=prompt)
    except (BudgetError, ConfigError) as error:  # used up, or the provider refuses the key
        return Swap(llm.model, why=str(error))
    half = len(both) // 2
    pairs = [(_similarity(one), _similarity(other)) for one, other in zip(judged[:half], judged[half:], strict=True)]
    swap = traded(llm.model, pairs, _spread(report, llm.model), report.thresholds)
    reason = next((j.reason for j in judged if isinstance(j, Unjudged)), "")
    return replace(swap, why=f"{swap.why}: {reason}") if reason and not swap.n else swap


def _similarity(judgement: Judgement) -> float | None:
    return judgement.similarity if isinstance(judgement, Verdict) else None


def _spread(report: Report, judge: str) -> Spread:
    """How the judge's own repeats of similarity differ: of the one that was asked, or of the only one there is."""
    own = [known for known in report.judges if known.judge == judge or len(report.judges) == 1]
    return next(
        (score.spread for known in own for score in known.scores if score.quantity == "similarity"), Spread(0)
    )
