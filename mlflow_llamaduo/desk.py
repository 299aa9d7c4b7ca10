"""The stages of one alignment, and how each is asked for: every one looks in the journal before it does anything."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.records import Adapter, Grown, Judgement, PairSet, Response, TaskPrompt, Unjudged
from mlflow_llamaduo.core.rounds import BASE, State
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.finetune import finetune, optimizer_steps
from mlflow_llamaduo.inference import EnginePool
from mlflow_llamaduo.journal import HOME, Journal
from mlflow_llamaduo.judging import judge
from mlflow_llamaduo.plan import CHARACTERS_A_TOKEN
from mlflow_llamaduo.preflight import redaction
from mlflow_llamaduo.progress import Watched, bar, watched
from mlflow_llamaduo.prompts import Prompts
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.synthesis import Order, grow
from mlflow_llamaduo.tracking import Tracker

Say = Callable[[str], None]


class Desk:
    """The stages of one alignment; starts Ray when the first one needs it."""

    def __init__(
        self,
        project: Project,
        journal: Journal,
        base: BaseModelFolder,
        store: ReplyStore,
        tracker: Tracker,
        prompts: Prompts,
        say: Say,
        cleanup: ExitStack,
    ) -> None:
        self._project = project
        self._journal = journal
        self._base = base
        self._store = store
        self._tracker = tracker
        self._prompts = prompts
        self._say = say
        self._cleanup = cleanup
        self._connected = False
        self._pool = EnginePool(base, project.inference)

    def finetune(self, train: PairSet, dev: PairSet, number: int) -> Adapter:
        recipe = self._project.finetune

        def make(place: Path) -> Adapter:
            self._say(f"{title(number)}: fine-tuning on {len(train)} pairs, {recipe.epochs} epochs at most")
            self._connect()
            self._pool.yield_gpu()
            with bar(f"{title(number)}: fine-tuning", optimizer_steps(len(train), recipe), "step") as progress:
                return finetune(train, dev, base=self._base, recipe=recipe, target=place, done=progress.update)

        inputs = [
            train.digest,
            dev.digest,
            self._base.name,
            self._base.digest,
            recipe.model_dump(exclude={"usd_per_hour"}),
        ]
        return self._journal.once("finetune", inputs, Adapter, make)

    def infer(self, adapter: Adapter | None, prompts: PairSet, number: int) -> tuple[Response, ...]:
        settings = self._project.inference

        def make(_: Path) -> tuple[Response, ...]:
            self._say(f"{title(number)}: {settings.responses_per_prompt} answers to each of {len(prompts)} prompts")
            self._connect()
            with bar(f"{title(number)}: answers", len(prompts), "prompt") as progress:
                return self._pool.answer(prompts, adapter, done=progress.update)

        inputs = [
            prompts.digest,
            adapter.digest if adapter else None,
            self._base.digest,
            settings.model_dump(),
        ]
        return self._journal.once("infer", inputs, tuple[Response, ...], make)

    def judge(self, responses: tuple[Response, ...], number: int) -> tuple[Judgement, ...]:
        settings = self._project.judging
        configured = self._project.service_llm.judge

        def make(_: Path) -> tuple[Judgement, ...]:
            calls = len(responses) * settings.repeats
            llm = self._llm(configured, number, "judge", settings.trace_share)
            self._say(f"{title(number)}: {llm.model} judges {len(responses)} answers, {settings.repeats} times each")
            with asking(f"{title(number)}: judgings", calls, "judging", llm, calls, self._say) as progress:
                judged = judge(
                    responses, llm=llm, repeats=settings.repeats, done=progress.update, prompt=self._prompts["judge"]
                )
            if llm.meter.failed > calls / 2:
                reason = next((j.reason for j in judged if isinstance(j, Unjudged)), "")
                raise StageError(
                    f"{llm.model} failed {llm.meter.failed} of {calls} judgings ({reason}); the others are kept: "
                    "`llamaduo doctor` says more, and the same command asks for the rest"
                )
            return judged

        inputs = [
            [asdict(r) for r in responses],
            configured.identity,
            settings.repeats,
            *_asked(self._prompts["judge"]),
        ]
        return self._journal.once("judge", inputs, tuple[Judgement, ...], make)

    def synthesize(self, state: State, failed: Mapping[str, float], number: int) -> Grown:
        settings = self._project.synthesis
        configured = self._project.service_llm.generator
        order = new_order(self._project, self._prompts["synthesize"], number, state.train, state.dev, failed)

        def make(_: Path) -> Grown:
            llm = self._llm(configured, number, "synthesize", settings.trace_share)
            self._say(f"{title(number)}: {llm.model} writes {order.rows} pairs")
            with asking(f"{title(number)}: new pairs", order.rows, "pair", llm, order.calls, self._say) as progress:
                index = HOME / self._project.task / "curation.npz"
                grown = grow(state.train, order, test=state.test, llm=llm, done=progress.update, index=index)
            self._say(f"{title(number)}: {brought(grown)}")
            return grown

        inputs = [
            state.train.digest,
            state.test.digest,
            number,
            configured.identity,
            settings.model_dump(exclude={"trace_share", "prompt"}),
            _asked(order.prompt),
            order.max_characters,
            self._project.coverage.model_dump(include={"redact_kinds", "phone_regions"}) if order.redact else None,
            [state.dev.digest, sorted(failed.items())],
        ]
        return self._journal.once("synthesize", inputs, Grown, make)

    def _connect(self) -> None:
        if not self._connected:
            self._cleanup.enter_context(cluster())
            self._cleanup.callback(self._pool.release)
            self._connected = True

    def _llm(self, llm: ServiceModel, number: int, stage: str, trace_share: float) -> ServiceLLM:
        return ServiceLLM(
            llm,
            store=self._store,
            budget=budget(self._project),
            purpose=Purpose(self._journal.fingerprint, f"{title(number)}: {stage}"),
            trace=self._tracker.trace,
            trace_share=trace_share,
        )


def budget(project: Project) -> Budget:
    """The caps that a project sets for its run and for the working folder."""
    folder = project.limits.folder_budget_usd
    return Budget(project.limits.budget_usd, float("inf") if folder is None else folder)


@contextmanager
def asking(
    description: str, total: int, unit: str, llm: ServiceLLM, calls: int, say: Callable[[str], None]
) -> Iterator[Watched]:
    """Progress of a stage that asks the service LLM: a bar with rate, failures and dollars."""
    with watched(description, total, unit, line=lambda: llm.meter.line(calls), say=say) as shown:
        llm.meter.watch = shown.refresh
        yield shown


def brought(grown: Grown) -> str:
    """What a round of synthesis brought, in a line."""
    reasons = Counter(rejected.reason for rejected in grown.rejected)
    line = f"{len(grown.kept)} new pairs kept"
    if reasons:
        line += "; rejected: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if (length := grown.figures.get("prompt_length_ratio")) is not None:
        responses, near = grown.figures["response_length_ratio"], grown.figures["nearest_seed_mean"]
        line += f"; prompts {length:.2f} and responses {responses:.2f} times as long as people's, "
        line += f"{100 * near:.0f} % of the words of the nearest one"
    return line


def new_order(
    project: Project, prompt: TaskPrompt, number: int, train: PairSet, dev: PairSet, failed: Mapping[str, float]
) -> Order:
    """What a project asks the generator for in round `number`; pairs like those of `train`."""
    settings = project.synthesis
    return Order(
        rows=settings.rows(number),
        per_call=settings.pairs_per_call,
        batch=number,
        max_characters=settings.max_characters or CHARACTERS_A_TOKEN * project.finetune.max_length,
        prompt=prompt,
        redact=redaction(project, train),
        dev=dev,
        failed=failed,
    )


def _asked(prompt: TaskPrompt) -> tuple[str, str]:
    return prompt.task, prompt.text


def title(number: int) -> str:
    """How a round is called on the terminal and in the reply store."""
    return "base" if number == BASE else f"round {number}"
