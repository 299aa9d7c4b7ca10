"""Each stage alone: JSONL in, JSONL or an adapter out."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow_llamaduo import preflight
from mlflow_llamaduo.asking import Say, asking, brought, budget
from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import FLEET, FineTune, Project, ServiceModel
from mlflow_llamaduo.core.records import Adapter, Judgement, PairSet, Response, Unjudged, Verdict, digest
from mlflow_llamaduo.core.scoring import score
from mlflow_llamaduo.coverage import read_pairs
from mlflow_llamaduo.coverage.gathered import told
from mlflow_llamaduo.desk import new_order
from mlflow_llamaduo.doctor import examine
from mlflow_llamaduo.errors import DataError, StageError
from mlflow_llamaduo.files import each_jsonl, folder_digest, locked, to_jsonl, write_atomic, writing_atomic
from mlflow_llamaduo.finetune import TrainWorkers, optimizer_steps
from mlflow_llamaduo.inference import EnginePool
from mlflow_llamaduo.journal import HOME
from mlflow_llamaduo.judging import judge_each
from mlflow_llamaduo.plan import approve, plan_judging, plan_synthesis
from mlflow_llamaduo.progress import bar
from mlflow_llamaduo.prompts import task_prompts
from mlflow_llamaduo.service_llm.client import Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.store import REPLIES
from mlflow_llamaduo.synthesis import grow

SAMPLE = 1000
"""Rows that the cost of judging a file is reckoned from."""


def coverage(project: Project, out: Path, say: Say) -> None:
    """Write the pairs into one file, each with its side, or into a folder: train.jsonl, dev.jsonl and test.jsonl."""
    gathered = preflight.collect(project)
    say(told(gathered.report))
    parts = gathered.parts
    sides = {"train": parts.train, "dev": parts.dev, "test": parts.test}
    if out.suffix in (".jsonl", ".json"):
        sides["left_out"] = parts.left_out
        rows = [{**pair.row(), "split": side} for side, pairs in sides.items() for pair in pairs]
        write_atomic(out, to_jsonl(rows))
        say(f"{out}: " + ", ".join(f"{len(pairs)} {side}" for side, pairs in sides.items() if pairs))
    else:
        for side, pairs in sides.items():
            write_atomic(out / f"{side}.jsonl", to_jsonl(pair.row() for pair in pairs))
            say(f"{len(pairs)} pairs in {out / side}.jsonl")
    beside = HOME / project.task
    gathered.keep(beside)
    if gathered.rejected:
        say(f"every rejected row with its reason: {beside / 'coverage' / 'rejected.jsonl'}")


def finetune_pairs(project: Project, train: Path, dev: Path, out: Path, say: Say) -> None:
    """Train an adapter into a new folder."""
    if out.exists():
        raise DataError(f"{out} is there already: name a new folder with --out")
    preflight.check_base(project)
    preflight.check_checkpoints(project)
    train_pairs, dev_pairs = read_pairs(train), read_pairs(dev)
    base = resolve(project.base_model, say)
    key = training_key(train_pairs, dev_pairs, base.digest, project.finetune)
    workers = TrainWorkers(
        base, project.finetune, name=f"{project.task}-{key}", folder=HOME / project.task / "training"
    )
    with cluster():
        steps = optimizer_steps(len(train_pairs), project.finetune)
        with bar("fine-tuning", steps, "step") as progress:
            adapter = workers.finetune(train_pairs, dev_pairs, key=key, target=out, done=progress.update, say=say)
        workers.close()
    losses = f"train loss {adapter.train_loss:.3f}, dev loss {adapter.eval_loss:.3f}"
    say(f"{out}: {losses} at epoch {adapter.best_epoch:g}")


def training_key(train: PairSet, dev: PairSet, base_digest: str, recipe: FineTune) -> str:
    """What a training is found again by after a crash: its data and the recipe for so many rows, not its price."""
    return digest(
        [train.digest, dev.digest, base_digest, recipe.at(len(train)).model_dump(exclude=FLEET | {"usd_per_hour"})]
    )


def infer(project: Project, in_: Path, adapter: Path | None, out: Path, say: Say) -> None:
    """Write one row for each response: id, instruction, reference, response."""
    preflight.check_base(project)
    preflight.check_engine(project)
    prompts, base = read_pairs(in_), resolve(project.base_model, say)
    trained = None if adapter is None else _adapter(adapter)
    with cluster():
        pool = EnginePool(
            base,
            project.inference,
            template=project.finetune.chat_template,
            lora_rank=project.finetune.largest_rank,
        )
        with bar("answers", len(prompts), "prompt") as progress:
            responses = pool.answer(prompts, trained, done=progress.update)
        pool.release()
    rows = [
        {"id": r.id, "instruction": r.instruction, "reference": r.reference, "response": r.text} for r in responses
    ]
    write_atomic(out, to_jsonl(rows))
    say(f"{len(rows)} responses in {out}")


def judge_responses(project: Project, in_: Path, out: Path, say: Say, *, yes: bool) -> None:
    """Write every response row with its verdicts and their means; rows stream, so that there may be many."""
    rows = sum(1 for _ in each_jsonl(in_, _response))  # all bad rows are told before anything is paid for
    settings, llm_ = project.judging, project.service_llm.judge
    calls, totals = rows * settings.repeats, Totals()
    prompt = task_prompts(project)["judge"]
    with _llm(project, llm_, "judge", out) as llm:
        sample = (response for _, response in islice(each_jsonl(in_, _response), SAMPLE))
        planned = plan_judging(project, sample, llm.store.typical)
        approve(planned.usd.likely * rows / max(1, min(rows, SAMPLE)), project, yes=yes)
        read: deque[dict[str, Any]] = deque()

        def responses() -> Iterator[Response]:
            for row, response in each_jsonl(in_, _response):
                read.append(row)
                yield response

        with (
            asking("judgings", calls, "judging", llm, calls, say) as progress,
            writing_atomic(out) as stream,
        ):
            for _, own in judge_each(
                responses(), llm=llm, repeats=range(settings.repeats), done=progress.update, prompt=prompt
            ):
                stream.write(to_jsonl([{**read.popleft(), **_judged(own)}]))
                totals.add(own)
    say(f"{out}: {totals}, {llm.meter.usd:.4f} dollars")
    if rows and not totals.verdicts:
        raise StageError(f"no judging has a verdict: the reasons are in {out}, and `llamaduo doctor` may say more")


def synthesize_pairs(
    project: Project, in_: Path, test: Path | None, batch: int, out: Path, say: Say, *, yes: bool
) -> None:
    """Write the new pairs that were kept, and beside them the rejected ones with their reasons."""
    preflight.check_grammar(project)
    seeds = read_pairs(in_)
    held_out = read_pairs(test) if test else PairSet(())
    prompt = task_prompts(project)["synthesize"]
    order = replace(new_order(project, prompt, batch, seeds, PairSet(()), {}), rows=project.synthesis.rows(1))
    with _llm(project, project.service_llm.generator, "synthesize", out) as llm:
        approve(plan_synthesis(project, seeds, llm.store.typical).usd.likely, project, yes=yes)
        with asking("new pairs", order.rows, "pair", llm, order.calls, say) as progress:
            grown = grow(seeds, order, test=held_out, llm=llm, done=progress.update)
    write_atomic(out, to_jsonl(pair.row() for pair in grown.kept))
    if grown.rejected:
        write_atomic(out.with_suffix(".rejected.jsonl"), to_jsonl(asdict(r) for r in grown.rejected))
    say(f"{out}: {brought(grown)}; {llm.meter.usd:.4f} dollars")
    if not grown.kept and all(rejected.reason == "malformed" for rejected in grown.rejected):
        reason = next((rejected.detail for rejected in grown.rejected), "no reply")
        raise StageError(f"{llm.model} wrote no usable pair ({reason}); `llamaduo doctor` may say more")


def examine_models(project: Project, show: Say) -> bool:
    """Say of each configured service LLM whether it can be asked; True if all can."""
    good = True
    roles = project.service_llm
    for llm in roles.models:
        names = [name for name, own in (("judge", roles.judge), ("generator", roles.generator)) if own == llm]
        show(f"{' and '.join(names)}: {llm.model}" + (f" at {llm.api_base}" if llm.api_base else ""))
        with ReplyStore(REPLIES) as store:
            for finding in examine(llm, store):
                good = good and finding.good is not False
                mark = {True: "ok", False: "BAD", None: ""}[finding.good]
                show(f"  {finding.what:<14} {mark:<4} {finding.detail}")
    return good


@dataclass
class Totals:
    """Means over judgings that came and went."""

    judgings: int = 0
    verdicts: int = 0
    precision: float = 0.0
    similarity: float = 0.0

    def add(self, own: Sequence[Judgement]) -> None:
        """Some more of them."""
        self.judgings += len(own)
        for judgement in own:
            if isinstance(judgement, Verdict):
                self.verdicts += 1
                self.precision += judgement.precision
                self.similarity += judgement.similarity

    def __str__(self) -> str:
        of = max(1, self.verdicts)
        return (
            f"precision {self.precision / of:.1f}, similarity {self.similarity / of:.1f}, "
            f"{self.judgings - self.verdicts} of {self.judgings} judgings without a verdict"
        )


def _judged(own: Sequence[Judgement]) -> dict[str, Any]:
    """A row's judge and verdicts, and their means where there are any."""
    verdicts = [
        {"unjudged": j.reason}
        if isinstance(j, Unjudged)
        else {"similarity": j.similarity, "precision": j.precision, "reason": j.reason}
        for j in own
    ]
    card = score(own)
    judged = card.unjudged < card.judgings
    means = {"similarity": card.similarity.value, "precision": card.precision.value} if judged else {}
    return {"judge": own[0].judge, "verdicts": verdicts, **means}


@contextmanager
def _llm(project: Project, llm: ServiceModel, stage: str, out: Path) -> Iterator[ServiceLLM]:
    """The service LLM for one step; a second process that writes the same file has to wait."""
    preflight.check_models(llm)
    run = f"{stage}-{digest(llm.identity, str(out.absolute()))}"
    with (
        locked(HOME / "steps" / f"{run}.lock", f"{out} is being written"),
        ReplyStore(REPLIES) as store,
    ):
        yield ServiceLLM(llm, store=store, budget=budget(project), purpose=Purpose(run, stage))


def _adapter(folder: Path) -> Adapter:
    if not (folder / "adapter_model.safetensors").is_file():
        raise DataError(f"{folder} is no adapter: it has no adapter_model.safetensors")
    return Adapter(str(folder.absolute()), folder_digest(folder), "", "", 0.0, 0.0, 0.0, 0, 0.0)


def _response(row: Any) -> tuple[dict[str, Any], Response]:
    """The row, kept as it is, and what is judged of it."""
    fields = ("id", "instruction", "reference", "response")
    missing = [field for field in fields if not isinstance(row, dict) or not isinstance(row.get(field), str)]
    if missing:
        raise ValueError(f"no text under {', '.join(missing)}")
    return row, Response(row["id"], 0, row["instruction"], row["reference"], row["response"], 0)
