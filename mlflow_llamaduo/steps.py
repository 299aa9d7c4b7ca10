"""Each stage alone: JSONL in, JSONL or an adapter out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow_llamaduo import preflight, wiring
from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.records import Adapter, PairSet, Response, Unjudged, digest
from mlflow_llamaduo.core.scoring import score
from mlflow_llamaduo.coverage import read_pairs
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import folder_digest, read_jsonl, to_jsonl, write_atomic
from mlflow_llamaduo.finetune import finetune, optimizer_steps
from mlflow_llamaduo.inference import EnginePool
from mlflow_llamaduo.judging import judge
from mlflow_llamaduo.service_llm.client import Budget, ReplyStore, ServiceLLM
from mlflow_llamaduo.synthesis import curate, synthesize

Say = Callable[[str], None]


def coverage(project: Project, out: Path, say: Say) -> None:
    """Write train.jsonl, dev.jsonl and test.jsonl."""
    parts = preflight.collect(project)
    for name, pairs in (("train", parts.train), ("dev", parts.dev), ("test", parts.test)):
        write_atomic(out / f"{name}.jsonl", to_jsonl(pair.row() for pair in pairs))
        say(f"{len(pairs)} pairs in {out / name}.jsonl")


def finetune_pairs(project: Project, train: Path, dev: Path, out: Path, say: Say) -> None:
    """Train an adapter into a new folder."""
    if out.exists():
        raise DataError(f"{out} is there already: name a new folder with --out")
    train_pairs, dev_pairs = read_pairs(train), read_pairs(dev)
    base = resolve(project.base_model, say)
    with cluster():
        steps = optimizer_steps(len(train_pairs), project.finetune)
        with wiring.bar("fine-tuning", steps, "step") as progress:
            adapter = finetune(
                train_pairs, dev_pairs, base=base, recipe=project.finetune, target=out, done=progress.update
            )
    losses = f"train loss {adapter.train_loss:.3f}, dev loss {adapter.eval_loss:.3f}"
    say(f"{out}: {losses} at epoch {adapter.best_epoch:g}")


def infer(project: Project, in_: Path, adapter: Path | None, out: Path, say: Say) -> None:
    """Write one row for each response: id, instruction, reference, response."""
    prompts, base = read_pairs(in_), resolve(project.base_model, say)
    trained = None if adapter is None else _adapter(adapter)
    with cluster():
        pool = EnginePool(base, project.inference)
        with wiring.bar("answers", len(prompts), "prompt") as progress:
            responses = pool.answer(prompts, trained, done=progress.update)
        pool.release()
    rows = [
        {"id": r.id, "instruction": r.instruction, "reference": r.reference, "response": r.text} for r in responses
    ]
    write_atomic(out, to_jsonl(rows))
    say(f"{len(rows)} responses in {out}")


def judge_responses(project: Project, in_: Path, out: Path, say: Say) -> None:
    """Write every response row with its verdicts and their means."""
    if not in_.is_file():
        raise DataError(f"no file {in_}")
    read = read_jsonl(in_, _response)
    responses = [response for _, response in read]
    repeats = project.judging.repeats
    with _llm(project, project.service_llm.judge, "judge") as llm:
        with wiring.bar("judgings", len(responses) * repeats, "judging") as progress:
            judgements = judge(responses, llm=llm, repeats=repeats, done=progress.update)
    written = []
    for number, (row, _) in enumerate(read):
        own = judgements[number * repeats : (number + 1) * repeats]
        card = score(own)
        verdicts = [
            {"unjudged": j.reason}
            if isinstance(j, Unjudged)
            else {"similarity": j.similarity, "precision": j.precision, "reason": j.reason}
            for j in own
        ]
        judged = card.unjudged < card.judgings
        means = {"similarity": card.similarity.mean, "precision": card.precision.mean} if judged else {}
        written.append({**row, "verdicts": verdicts, **means})
    write_atomic(out, to_jsonl(written))
    card = score(judgements)
    say(
        f"{out}: precision {card.precision.mean:.1f}, similarity {card.similarity.mean:.1f}, "
        f"{card.unjudged} of {card.judgings} judgings without a verdict"
    )


def synthesize_pairs(project: Project, in_: Path, test: Path | None, batch: int, out: Path, say: Say) -> None:
    """Write the new pairs that were kept, and beside them the rejected ones with their reasons."""
    seeds = read_pairs(in_)
    held_out = read_pairs(test) if test else PairSet(())
    settings = project.synthesis
    with _llm(project, project.service_llm.generator, "synthesize") as llm:
        with wiring.bar("new pairs", settings.rows_per_round, "pair") as progress:
            new, malformed = synthesize(
                seeds,
                llm=llm,
                rows=settings.rows_per_round,
                per_call=settings.pairs_per_call,
                batch=batch,
                done=progress.update,
            )
    grown = curate(new, known=seeds, test=held_out)
    rejected = [*malformed, *grown.rejected]
    write_atomic(out, to_jsonl(pair.row() for pair in grown.kept))
    if rejected:
        write_atomic(out.with_suffix(".rejected.jsonl"), to_jsonl(asdict(r) for r in rejected))
    say(f"{len(grown.kept)} pairs in {out}, {len(rejected)} rejected")


@contextmanager
def _llm(project: Project, model: str, stage: str) -> Iterator[ServiceLLM]:
    preflight.check_models(project)
    store = ReplyStore(wiring.HOME / "replies.sqlite")
    run = f"{stage}-{digest(project.service_llm.model_dump())}"
    budget = Budget(project.limits.budget_usd, store.spent_usd(run))
    try:
        yield ServiceLLM(model, project.service_llm, store=store, budget=budget, run=run, stage=stage)
    finally:
        store.close()


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
