"""The judging of one alignment: by the gate's judge, by the others, in pairs; each looks in the journal first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow_llamaduo.asking import Say, asked, asking, given, refuse_mostly_failed
from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.adaptive import FIRST, settled
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.records import Comparison, Judgement, Response, TaskPrompt, Unjudged
from mlflow_llamaduo.core.rounds import Where, title
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.judging import judge
from mlflow_llamaduo.judging.pairwise import PAIRWISE, compare
from mlflow_llamaduo.judging.reference import for_task, measure
from mlflow_llamaduo.prompts import Prompts
from mlflow_llamaduo.service_llm.client import ServiceLLM

AskedOf = Callable[[ServiceModel, Where, str, float], ServiceLLM]
"""A service LLM for a stage: model, on whose behalf, the stage's name, share of the calls that become traces."""


class Jury:
    """All that judges the responses of one alignment."""

    def __init__(self, project: Project, journal: Journal, prompts: Prompts, llm: AskedOf, say: Say) -> None:
        self._project = project
        self._journal = journal
        self._prompts = prompts
        self._llm = llm
        self._say = say

    def judge(
        self, responses: tuple[Response, ...], where: Where, repeats: int, against: Against | None
    ) -> tuple[Judgement, ...]:
        """By the gate's judge; what it is held against, if asking may stop once the decision is settled."""
        return self._judge(self._project.service_llm.judge, responses, where, repeats, against)

    def judge_by_others(self, responses: tuple[Response, ...], where: Where) -> tuple[tuple[Judgement, ...], ...]:
        """By each of the other judges, twice: they decide nothing."""
        repeats = min(FIRST, self._project.judging.repeats)
        others = self._project.service_llm.other_judges
        return tuple(self._judge(llm, responses, where, repeats, None) for llm in others)

    def compare(
        self, responses: tuple[Response, ...], opponent: str, texts: Mapping[str, str], where: Where
    ) -> tuple[Comparison, ...]:
        """Each response with the opponent's text of the same id, where it has one."""
        configured = self._project.service_llm.judge
        own = tuple(response for response in responses if response.id in texts)
        others = [texts[response.id] for response in own]

        def make(_: Path) -> tuple[Comparison, ...]:
            calls = 2 * len(own)
            llm = self._llm(configured, where, "compare", self._project.judging.trace_share)
            self._say(
                f"{title(where)}: {llm.model} compares {len(own)} answers with the {opponent}'s, in both orders"
            )
            with asking(f"{title(where)}: pairs", calls, "asking", llm, calls, self._say) as progress:
                found = compare(
                    own, others, opponent=opponent, llm=llm, done=progress.update, prompt=self._pairwise_prompt
                )
            refuse_mostly_failed(llm, calls, "comparisons", [c.reason for c in found if c.outcome is None])
            return found

        inputs = [
            [asdict(r) for r in own],
            others,
            opponent,
            configured.identity,
            *asked(self._pairwise_prompt),
        ]
        return self._journal.once("compare", inputs, tuple[Comparison, ...], make)

    def reference(self, responses: tuple[Response, ...]) -> dict[str, float]:
        """The task's reference metrics, 0 to 100: no judge is asked."""
        names = self._project.judging.metrics
        task = self._project.category or self._project.task
        return measure(responses, for_task(task) if names is None else names)

    @property
    def _pairwise_prompt(self) -> TaskPrompt:
        return TaskPrompt(self._prompts["judge"].task, PAIRWISE.text, PAIRWISE.source)

    def _judge(
        self,
        configured: ServiceModel,
        responses: tuple[Response, ...],
        where: Where,
        repeats: int,
        against: Against | None,
    ) -> tuple[Judgement, ...]:
        settings, gate = self._project.judging, self._project.rules
        prompt = self._prompts["judge"]
        # A batch takes its provider up to a day: one after each judging is no saving.
        stops = against if settings.adaptive and not configured.batch else None

        def decided(judged: Sequence[Judgement]) -> bool:
            return stops is not None and settled(judged, responses, repeats=repeats, gate=gate, against=stops)

        def make(_: Path) -> tuple[Judgement, ...]:
            calls = len(responses) * repeats
            llm = self._llm(configured, where, "judge", settings.trace_share)
            self._say(f"{title(where)}: {llm.model} judges {len(responses)} answers, {repeats} times each at most")
            with asking(f"{title(where)}: judgings", calls, "judging", llm, calls, self._say) as progress:
                judged = judge(
                    responses,
                    llm=llm,
                    repeats=repeats,
                    done=progress.update,
                    prompt=prompt,
                    settled=decided if stops else None,
                )
            refuse_mostly_failed(llm, len(judged), "judgings", [j.reason for j in judged if isinstance(j, Unjudged)])
            if len(judged) < calls:
                self._say(f"{title(where)}: the decision is settled: {calls - len(judged)} of {calls} judgings saved")
            return judged

        inputs = [[asdict(r) for r in responses], configured.identity, repeats, *asked(prompt)]
        decides = [[asdict(rule) for rule in gate], _scores(stops)] if stops else []
        return self._journal.once("judge", inputs + given(decides), tuple[Judgement, ...], make)


def _scores(against: Against) -> Any:
    """All that a decision depends on beside the judgings, as JSON values."""
    cards = {name: [asdict(row) for row in card.scored] for name, card in against.baselines.items()}
    return [cards, {name: duels.points for name, duels in against.duels.items()}]
