"""The stages of one alignment, and how each is asked for: every one looks in the journal before it does anything."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlflow_llamaduo.asking import Say, asked, asking, brought, given, refuse_mostly_failed
from mlflow_llamaduo.base_models import BaseModelFolder, resolve
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import FLEET, Baselines, Project, ServiceModel
from mlflow_llamaduo.core.parity import BFLOAT16, FLOAT32, NF4
from mlflow_llamaduo.core.records import (
    Adapter,
    Grown,
    Pair,
    PairSet,
    Response,
    TaskPrompt,
)
from mlflow_llamaduo.core.rounds import State, Where, title
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.finetune import TrainWorkers, optimizer_steps
from mlflow_llamaduo.fit_places import answering_machine, training_machine
from mlflow_llamaduo.fit_time import CHARACTERS_A_TOKEN
from mlflow_llamaduo.inference import EnginePool
from mlflow_llamaduo.inference.few_shot import examples
from mlflow_llamaduo.journal import HOME, Journal
from mlflow_llamaduo.parity import Checked, check
from mlflow_llamaduo.preflight import redaction
from mlflow_llamaduo.progress import bar
from mlflow_llamaduo.prompts import Prompts
from mlflow_llamaduo.pyfunc_model import pack, package
from mlflow_llamaduo.service_llm.client import ServiceLLM
from mlflow_llamaduo.service_llm.work import Account
from mlflow_llamaduo.synthesis import Order, grow
from mlflow_llamaduo.synthesis.answer import answer_with
from mlflow_llamaduo.tracking import Tracker


class Desk:
    """The stages of one alignment; starts Ray when the first one needs it."""

    def __init__(
        self,
        project: Project,
        journal: Journal,
        base: BaseModelFolder,
        account: Account,
        tracker: Tracker,
        prompts: Prompts,
        say: Say,
        cleanup: ExitStack,
    ) -> None:
        self._project = project
        self._journal = journal
        self._base = base
        self._account = account
        self._tracker = tracker
        self._prompts = prompts
        self._say = say
        self._cleanup = cleanup
        self._trains, self._answers = training_machine(project), answering_machine(project)
        self._connected = False
        self._pools = {base.digest: self._new_pool(base)}
        self._workers = TrainWorkers(
            base,
            project.finetune,
            name=f"{project.task}-{journal.fingerprint}",
            folder=HOME / project.task / "training",
            beside=project.inference.actors * project.inference.gpus,
        )
        cleanup.push(self._clear)

    def finetune(self, train: PairSet, dev: PairSet, number: int) -> Adapter:
        recipe = self._project.finetune.at(len(train))

        def make(place: Path) -> Adapter:
            self._say(f"{title(number)}: fine-tuning on {len(train)} pairs, {recipe.epochs} epochs at most")
            self._connect()
            if not self._workers.stay:
                for pool in self._pools.values():
                    pool.release()
            with (
                self._account.at_work(self._trains, f"{title(number)}: train") as goes_on,
                bar(f"{title(number)}: fine-tuning", optimizer_steps(len(train), recipe), "step") as progress,
            ):
                done = _both(progress.update, goes_on)
                return self._workers.finetune(train, dev, key=place.name, target=place, done=done, say=self._say)

        inputs = [
            train.digest,
            dev.digest,
            self._base.name,
            self._base.digest,
            recipe.model_dump(exclude=FLEET | {"usd_per_hour"}),
        ]
        return self._journal.once("finetune", inputs, Adapter, make)

    def pack(self, adapter: Adapter, dev: PairSet, number: int) -> Checked:
        """The adapter as a version will hold it, shown to answer as it was trained."""
        known = {pair.id: pair for pair in dev}
        pairs, content = [known[name] for name in adapter.probed], package(self._project, adapter)
        chats = [[asdict(message) for message in pair.prompt] for pair in pairs]

        def make(place: Path) -> Checked:
            self._say(f"{title(number)}: is what is packed what was trained? {len(pairs)} probes")
            self._connect()
            with self._account.at_work(self._answers, f"{title(number)}: pack"):
                pack(place, adapter=Path(adapter.path), package=content)
                return check(place, adapter, chats, self._pool(adapter).run)

        # Its folder gets the evidence of this alignment, so it is found by this one only.
        inputs = [
            self._journal.fingerprint,
            adapter.digest,
            asdict(content),
            [pair.id for pair in pairs],
            [asdict(FLOAT32), asdict(BFLOAT16), NF4],
        ]
        return self._journal.once("pack", inputs, Checked, make)

    def infer(
        self, adapter: Adapter | None, prompts: PairSet, where: Where, shots: tuple[Pair, ...] = ()
    ) -> tuple[Response, ...]:
        settings = self._project.inference
        base_digest = adapter.base_digest if adapter else self._base.digest

        def make(_: Path) -> tuple[Response, ...]:
            self._say(f"{title(where)}: {settings.responses_per_prompt} answers to each of {len(prompts)} prompts")
            self._connect()
            if adapter is None and self._workers.stay:  # the bare base answers before the first fine-tuning
                self._workers.start()
            with (
                self._account.at_work(self._answers, f"{title(where)}: infer") as goes_on,
                bar(f"{title(where)}: answers", len(prompts), "prompt") as progress,
            ):
                done = _both(progress.update, goes_on)
                return self._pool(adapter).answer(prompts, adapter, done=done, shots=shots)

        inputs: list[Any] = [
            prompts.digest,
            adapter.digest if adapter else None,
            base_digest,
            settings.model_dump(exclude={"actors", "accelerator_type"}),
            self._project.finetune.chat_template,
        ]
        found = self._journal.once("infer", inputs + given([shot.id for shot in shots]), tuple[Response, ...], make)
        return _sliced(found, prompts)

    def baseline(self, name: str, state: State, champion: Adapter | None) -> tuple[Response, ...]:
        """The answers of a model that rounds are compared with; none where there is no champion."""
        if name == "service_llm":
            return self._service_llm(state.test)
        if name == "champion":
            return self.infer(champion, state.test, name) if champion else ()
        count = self._project.baselines.few_shot or Baselines().few_shot
        return self.infer(None, state.test, name, examples(state.train, count) if name == "few_shot" else ())

    def synthesize(self, state: State, failed: Mapping[str, float], number: int) -> Grown:
        settings = self._project.synthesis
        configured = self._project.service_llm.generator
        order = new_order(self._project, self._prompts["synthesize"], number, state.train, state.dev, failed)

        def make(_: Path) -> Grown:
            llm = self.llm(configured, number, "synthesize", settings.trace_share)
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
            asked(order.prompt),
            order.max_characters,
            self._project.coverage.model_dump(include={"redact_kinds", "phone_regions"}) if order.redact else None,
            [state.dev.digest, sorted(failed.items())],
        ]
        return self._journal.once("synthesize", inputs, Grown, make)

    def _service_llm(self, prompts: PairSet) -> tuple[Response, ...]:
        """The generator's own answers to the prompts, as many to each as the local model gives."""
        configured, samples = self._project.service_llm.generator, self._project.inference.responses_per_prompt

        def make(_: Path) -> tuple[Response, ...]:
            calls = len(prompts) * samples
            llm = self.llm(configured, "service_llm", "answer", self._project.judging.trace_share)
            self._say(f"service_llm: {llm.model} answers {len(prompts)} prompts itself, {samples} times each")
            with asking("service_llm: answers", calls, "answer", llm, calls, self._say) as progress:
                responses, failed = answer_with(llm, prompts, samples=samples, done=progress.update)
            refuse_mostly_failed(llm, calls, "answers", failed)
            return responses

        inputs = [prompts.digest, configured.identity, samples]
        return _sliced(self._journal.once("answer", inputs, tuple[Response, ...], make), prompts)

    def _pool(self, adapter: Adapter | None) -> EnginePool:
        """The one with the adapter's base: a champion may be of another."""
        digest = adapter.base_digest if adapter else self._base.digest
        if digest not in self._pools and adapter:
            base = resolve(adapter.base_model, self._say)
            if base.digest != digest:
                raise StageError(
                    f"{base.path} is not the {adapter.base_model} that the champion was trained on (digest "
                    f"{base.digest}, not {digest}): put the original there, or take the alias champion from it"
                )
            self._pools[digest] = self._new_pool(base)
        return self._pools[digest]

    def _new_pool(self, base: BaseModelFolder) -> EnginePool:
        recipe = self._project.finetune
        return EnginePool(base, self._project.inference, template=recipe.chat_template, lora_rank=recipe.largest_rank)

    def _connect(self) -> None:
        if not self._connected:
            self._cleanup.enter_context(cluster())
            self._cleanup.push(self._leave)
            self._connected = True

    def _clear(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._workers.clear()

    def _leave(self, error: type[BaseException] | None, *_: object) -> None:
        """What ends well is put away; what is stopped is left as it is, checkpoints above all, and not waited for."""
        if error is None:
            self._workers.close()
        for pool in self._pools.values():
            pool.release()

    def llm(self, llm: ServiceModel, where: Where, stage: str, trace_share: float) -> ServiceLLM:
        """A service LLM that is asked for this alignment, at its cost."""
        return ServiceLLM(
            llm,
            store=self._account.store,
            budget=self._account.budget,
            purpose=self._account.purpose(f"{title(where)}: {stage}"),
            trace=self._tracker.trace,
            trace_share=trace_share,
        )


def _both(update: Callable[[int], object], goes_on: Callable[[], None]) -> Callable[[int], None]:
    """Told what is done: it shows on the bar, and what it took is paid."""

    def done(units: int) -> None:
        update(units)
        goes_on()

    return done


def _sliced(responses: tuple[Response, ...], prompts: PairSet) -> tuple[Response, ...]:
    """The responses with category and source as the pairs have them now: no part of what they are found by."""
    pairs = {pair.id: pair for pair in prompts}
    return tuple(replace(r, category=pairs[r.pair_id].category, source=pairs[r.pair_id].source) for r in responses)


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
