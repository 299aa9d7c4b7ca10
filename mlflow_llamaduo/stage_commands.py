"""The stages of the loop as commands, each alone: files in, files out."""

from pathlib import Path

import click

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.options import (
    ANSWERS,
    BASE_MODEL,
    BUDGET,
    EPOCHS,
    PAIRS,
    REPEATS,
    ROWS,
    SERVICE_LLM,
    edge,
    project_options,
    say,
    yes_option,
)
from mlflow_llamaduo.places import check_out, check_working_folder

FILE = click.Path(path_type=Path)


def _writes(out: Path | None) -> None:
    """Before anything that takes long: a training that cannot be kept costs hours."""
    check_working_folder()
    check_out(out)


@click.command()
@click.option(
    "--out",
    type=FILE,
    required=True,
    help="A .jsonl of all pairs, each with its side as `split`; or a folder for train.jsonl, dev.jsonl, test.jsonl.",
)
@project_options(PAIRS)
def coverage(project: Project, out: Path) -> None:
    """Stage 1: read and check the coverage pairs, and split them once."""
    _writes(out if out.suffix in (".jsonl", ".json") else out / "train.jsonl")
    from mlflow_llamaduo.steps import stages

    stages.coverage(project, out, say)


@click.command()
@click.option("--train", type=FILE, required=True, help="JSONL of pairs to learn.")
@click.option("--dev", type=FILE, required=True, help="JSONL of pairs that choose the epoch.")
@click.option("--out", type=FILE, required=True, help="A new folder for the adapter.")
@project_options(BASE_MODEL, EPOCHS)
def finetune(project: Project, train: Path, dev: Path, out: Path) -> None:
    """Stage 2: train an adapter with QLoRA on Ray Train."""
    if not out.exists():  # one that is there is refused with other words
        _writes(out)
    from mlflow_llamaduo.steps import stages

    stages.finetune_pairs(project, train, dev, out, say)


@click.command()
@click.option("--in", "in_", type=FILE, required=True, help="JSONL of pairs to answer.")
@click.option("--adapter", type=FILE, help="An adapter's folder; without it the base answers.")
@click.option("--out", type=FILE, required=True, help="JSONL of responses.")
@project_options(BASE_MODEL, ANSWERS)
def infer(project: Project, in_: Path, adapter: Path | None, out: Path) -> None:
    """Stage 3: let the local model answer prompts."""
    _writes(out)
    from mlflow_llamaduo.steps import stages

    stages.infer(project, in_, adapter, out, say)


@click.command()
@click.option("--in", "in_", type=FILE, required=True, help="JSONL of responses.")
@click.option("--out", type=FILE, required=True, help="JSONL of the same rows with `verdicts` and their means.")
@yes_option
@project_options(SERVICE_LLM, REPEATS, BUDGET)
def judge(project: Project, in_: Path, out: Path, yes: bool) -> None:
    """Stage 4: let the service LLM judge responses: rows of id, instruction, reference, response.

    \b
    llamaduo judge --in responses.jsonl --out verdicts.jsonl --service-llm openai/gpt-4o \\
        --rpm 600 --repeats 10 --concurrency 64

    Run the same command again after a crash or Ctrl-C: what was answered is not asked again.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    _writes(out)
    from mlflow_llamaduo.steps import stages

    stages.judge_responses(project, in_, out, say, yes=yes)


@click.command()
@click.option("--in", "in_", type=FILE, required=True, help="JSONL of seed pairs.")
@click.option("--test", type=FILE, help="JSONL of held-out pairs that nothing may give away.")
@click.option("--batch", type=int, default=1, show_default=True, help="Another number asks for other pairs.")
@click.option("--out", type=FILE, required=True, help="JSONL of new pairs; the rejected ones beside it.")
@yes_option
@project_options(SERVICE_LLM, ROWS, BUDGET)
def synthesize(project: Project, in_: Path, test: Path | None, batch: int, out: Path, yes: bool) -> None:
    """Stage 5: let the service LLM write pairs like the seeds; keep the new and clean ones.

    \b
    llamaduo synthesize --in train.jsonl --out new.jsonl --rows 1000 --service-llm openai/gpt-4o --rpm 600
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    _writes(out)
    from mlflow_llamaduo.steps import stages

    stages.synthesize_pairs(project, in_, test, batch, out, say, yes=yes)


@click.command()
@click.option("--in", "in_", type=FILE, required=True, help="JSONL of new pairs.")
@click.option("--train", type=FILE, help="JSONL of the pairs that are there already.")
@click.option("--test", type=FILE, help="JSONL of held-out pairs that nothing may give away.")
@click.option("--out", type=FILE, required=True, help="JSONL of the pairs that are kept, line by line as they were.")
@click.option(
    "--rejected",
    type=FILE,
    help="JSONL of the others, each with reason and partner; <out>.rejected.jsonl if not given.",
)
@click.option(
    "--report", type=FILE, help="JSON: counts by reason, train rows that give a test prompt away, settings."
)
@edge
def curate(
    in_: Path, train: Path | None, test: Path | None, out: Path, rejected: Path | None, report: Path | None
) -> None:
    """Keep the new pairs that are new and clean: no copies, nothing that gives a test prompt away.

    \b
    llamaduo curate --in new.jsonl --train train.jsonl --test test.jsonl \\
        --out kept.jsonl --rejected rejected.jsonl --report report.json

    What is known of the train file is kept in .llamaduo/curation/: the next time only what was added to it is read.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    _writes(out)
    check_out(rejected, option="--rejected")
    check_out(report, option="--report")
    from mlflow_llamaduo.journal import HOME
    from mlflow_llamaduo.steps.curate import Paths, curate_files

    beside = rejected or out.with_suffix(".rejected.jsonl")
    curate_files(Paths(in_, train, test, out, beside, report), HOME / "curation", say)


@click.command("judge-report")
@click.option(
    "--in",
    "in_",
    type=FILE,
    multiple=True,
    help="JSONL of verdicts by `llamaduo judge`; may be repeated, one a judge.",
)
@click.option(
    "--run",
    "run_id",
    metavar="ID",
    help="The MLflow run of a round, instead or besides: its traces, people's feedback.",
)
@click.option(
    "--labels", type=FILE, help="JSONL or CSV of people's scores: id, and similarity or precision from 0 to 100."
)
@click.option(
    "--swap",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Responses to ask about with reference and response in each other's place; 0 asks nobody.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 100),
    multiple=True,
    default=(50, 70),
    show_default=True,
    help="The score of a good answer; may be repeated.",
)
@click.option("--out", type=FILE, help="JSON of all figures.")
@yes_option
@project_options(SERVICE_LLM, BUDGET)
def judge_report(
    project: Project,
    in_: tuple[Path, ...],
    run_id: str | None,
    labels: Path | None,
    swap: int,
    threshold: tuple[float, ...],
    out: Path | None,
    yes: bool,
) -> None:
    """How good the judge is: beside people, itself, other judges, and the length of answers.

    \b
    llamaduo judge --in responses.jsonl --out gpt-4o.jsonl --service-llm gpt-4o --repeats 4
    llamaduo judge-report --in gpt-4o.jsonl --labels labels.csv --service-llm gpt-4o

    Labels have the ids of the responses; 30 of them say something, 100 say it well. For the swap the judge is asked
    about some answers once more, with reference and response in each other's place: similarity should stay.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    _writes(out)
    from mlflow_llamaduo.steps.judge_report import Sources, judge_report
    from mlflow_llamaduo.steps.readings import told

    report = judge_report(project, Sources(in_, run_id, labels), threshold, swap, out, say, yes=yes)
    click.echo(told(report))


STAGES = (coverage, finetune, infer, judge, synthesize, curate, judge_report)
