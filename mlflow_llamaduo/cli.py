"""The `llamaduo` command: the whole loop, each stage alone, the versions, and serving.

Exit codes: 0 done (whatever the gate said), 1 a stage failed, 2 bad configuration or data, 3 with --strict when the
gate was not passed, 130 stopped by Ctrl-C. Heavy libraries are imported inside the commands that need them.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mlflow_llamaduo import __version__
from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.cost_commands import cost
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.export_commands import export
from mlflow_llamaduo.key_commands import keys
from mlflow_llamaduo.options import (
    LOOP,
    SERVICE_LLM,
    TYPED,
    flag,
    late_project_options,
    project_options,
    say,
    yes_option,
)
from mlflow_llamaduo.registry_commands import REGISTRY
from mlflow_llamaduo.report_commands import report
from mlflow_llamaduo.stage_commands import STAGES

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
TYPED_BY_HAND = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


@click.group(context_settings={"token_normalize_func": lambda name: name.replace("_", "-"), "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Move one task from a paid service LLM to a small local model you own.

    \b
    llamaduo plan --task closed_qa       what a run would ask for, its dollars and minutes
    llamaduo doctor --task closed_qa     whether the service LLM can be asked
    llamaduo run --task closed_qa        the whole loop (also: mlflow run . -P task=closed_qa)
    llamaduo review --task closed_qa     the versions, and the challenger beside the champion
    llamaduo promote --task closed_qa --reason "reads well"     (and: reject, rollback)
    llamaduo serve --task closed_qa      the champion behind an OpenAI-compatible endpoint
    llamaduo export --task closed_qa --to DIR      one folder for a machine without any network
    llamaduo report --run RUN_ID         one page of all that an alignment came to
    llamaduo cost --workload light       when the local model is the cheaper one

    The other commands are the stages of the loop, each alone, JSONL in and out.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are


@cli.command()
@flag("--fresh", "Begin anew instead of going on; finished stages are still used.")
@flag("--strict", "Exit with 3 when the gate was not passed.")
@yes_option
@project_options(*LOOP)
def run(project: Project, fresh: bool, strict: bool, yes: bool) -> None:
    """The whole loop: collect, fine-tune, judge, grow, until the gate passes or a limit stops it.

    Run the same command again after a crash or Ctrl-C: it goes on with the unfinished stage.
    """
    from mlflow_llamaduo.plan import approve, plan_all, total
    from mlflow_llamaduo.preflight import check

    gathered = check(project)  # before the imports below, which take seconds
    with _seen() as seen:
        approve(total(plan_all(project, gathered.parts, seen)).likely, project, yes=yes)

    from mlflow_llamaduo import wiring
    from mlflow_llamaduo.tracking.tables import summary

    outcome = wiring.run(project, gathered, fresh=fresh, say=say)
    click.echo("\n" + summary(outcome.state, project.judging.thresholds) + "\n")
    if outcome.detail:
        say(outcome.detail)
    click.echo(f"stopped: {outcome.stop}. What to do next:")
    for line in _next_steps(project, outcome.stop):
        click.echo(f"  {line}")
    if strict and outcome.stop != "passed":
        sys.exit(3)


@cli.command()
@project_options(*LOOP)
def plan(project: Project) -> None:
    """What a run would ask of the service LLM and of your machines, and whether the local model fits.

    Nothing is spent.

    Dollars are given with short replies, as they are likely to be, and with long ones; minutes at the configured
    rate. Where replies of the model are in the store, their mean length and time count. Memory is reckoned from the
    base model's config.json alone; no weights are fetched.
    """
    from mlflow_llamaduo.coverage.gathered import told
    from mlflow_llamaduo.fit_table import fit_lines
    from mlflow_llamaduo.plan import plan_all, total
    from mlflow_llamaduo.preflight import before_a_run, collect, same_family

    gathered = collect(project)
    parts = gathered.parts
    click.echo(f"task {project.task}, profile {project.profile}, base model {project.base_model}")
    click.echo(f"pairs: {len(parts.train)} train, {len(parts.dev)} dev, {len(parts.test)} test")
    click.echo(told(gathered.report))
    recipe = project.finetune
    place = f"{recipe.gpus_per_worker} GPU" if recipe.gpus_per_worker else "CPU"
    click.echo(
        f"fine-tuning: {recipe.quantization}, rank {recipe.lora_rank}, {recipe.epochs} epochs, "
        f"{recipe.workers} worker(s) with {place} each"
    )
    with _seen() as seen:
        rows = plan_all(project, parts, seen)
    click.echo(
        f"  {'stage':<20} {'model':<28} {'calls':>7} {'tokens in':>10} {'out':>9} "
        f"{'low':>8} {'likely':>8} {'high':>8} {'minutes':>8}"
    )
    for row in rows:
        minutes = "a day" if row.minutes is None else f"{row.minutes:.1f}"
        click.echo(
            f"  {row.stage:<20} {row.model:<28} {row.calls or '-':>7} {row.input_tokens or '-':>10} "
            f"{row.output_tokens or '-':>9} "
            f"{row.usd.low:>8.2f} {row.usd.likely:>8.2f} {row.usd.high:>8.2f} {minutes:>8}"
        )
    if (warning := same_family(project)) and not project.gate.forbid_same_family:
        say(warning)
    usd, limits = total(rows), project.limits
    click.echo(
        f"dollars: {usd.low:.2f} if the gate is passed in round 0, {usd.likely:.2f} likely if all rounds are run, "
        f"{usd.high:.2f} if replies are long; the budget is {limits.budget_usd:.2f}"
    )
    asking = sum(row.minutes or 0 for row in rows if row.calls)
    working = sum(row.minutes or 0 for row in rows if not row.calls)
    click.echo(f"minutes: {asking:.1f} of asking, {working:.1f} of our own machines, if all rounds are run")
    for line in fit_lines(project, parts):
        click.echo(line)
    if usd.likely > limits.ask_above_usd:
        say(f"a run needs --yes: it is likely to cost more than limits.ask_above_usd ({limits.ask_above_usd:g})")
    for problem in before_a_run(project):
        say(f"before a run: {problem}")


@cli.command()
@flag("--presets", "List the models that have a short name, and ask nobody.")
@project_options(SERVICE_LLM)
def doctor(project: Project, presets: bool) -> None:
    """Whether each service LLM can be asked: reachable, key, JSON schema, price, limits.

    Asks one short question of every paid model, a fraction of a cent. Exit code 1 if one cannot be asked.
    """
    if presets:
        _show_presets()
        return
    from mlflow_llamaduo.steps.stages import examine_models

    if not examine_models(project, click.echo):
        sys.exit(1)


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), help="On serving.host; serving.port if not given.")
@click.option("--also", multiple=True, metavar="TASK", help="Another task on the same base; any number of them.")
@click.option(
    "--from",
    "folder",
    type=FOLDER,
    help="A folder of llamaduo export; of the others only --port and --set serving.<key>=<value> go with it.",
)
@click.option(
    "--config", "file", type=FILE, help="A configuration file of Ray Serve, instead of --task and all the rest."
)
@late_project_options(SERVICE_LLM)
def serve(
    opened: Callable[[], Project], port: int | None, also: tuple[str, ...], folder: Path | None, file: Path | None
) -> None:
    """The champion behind POST /v1/chat/completions on 127.0.0.1, until Ctrl-C.

    \b
    llamaduo serve --task closed_qa
    llamaduo serve --task closed_qa --also coding --also summarization
    llamaduo serve --from /media/stick/closed_qa          what llamaduo export has made; no network, no MLflow
    llamaduo serve --config serve/local.yaml              as `serve run` does, checked before anything starts

    It follows the registry: a new champion, or a rollback, answers within seconds. `model` of a request is a task
    (its champion), closed_qa@challenger, or closed_qa@7.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    context = click.get_current_context()
    typed = {key: value for key, value in context.meta[TYPED].items() if value is not None}
    if file is not None:
        _alone(context, "--config", folder is not None or bool(typed))
        from mlflow_llamaduo.serving.config_file import serve_file

        serve_file(file, port=port, say=say)
        return
    if folder is not None:
        _alone(context, "--from", False)
        from mlflow_llamaduo.serving.exported import serve_folder

        serve_folder(folder, typed, port=port, say=say)
        return
    project = opened()
    others = [load(task, project.profile, typed) for task in also if task != project.task]
    from mlflow_llamaduo.serving.run import serve_projects

    serve_projects([project, *others], port=port or project.serving.port, say=say)


def _alone(context: click.Context, option: str, more: bool) -> None:
    """--from and --config are all that is said of what is served."""
    given = [name for name in ("task", "profile", "also") if context.get_parameter_source(name) in TYPED_BY_HAND]
    if given or more:
        other = f"--{given[0]}" if given else "--from, --set or another setting"
        raise ConfigError(f"{other} does not go with {option}: what it names says what is served, and how")


for command in (*STAGES, *REGISTRY, cost, export, keys, report):
    cli.add_command(command)


@contextmanager
def _seen() -> Iterator[Callable[[str, str], Any]]:
    """What the reply store knows of earlier replies; a plan makes no store where there is none."""
    from mlflow_llamaduo.service_llm.store import REPLIES, ReplyStore

    if not REPLIES.is_file():
        yield lambda model, stage: None
        return
    with ReplyStore(REPLIES) as store:
        yield store.typical


def _show_presets() -> None:
    from mlflow_llamaduo.service_llm.terms import presets

    click.echo(f"{'name':<22} {'model':<38} {'dollars in/out':>15} {'rpm':>6} {'tpm':>9}  as of")
    for name, known in presets().items():
        usd = f"{known['input_usd_per_mtok']:g} / {known['output_usd_per_mtok']:g}"
        off = f", off since {known['retired']}: take {known['successor']}" if "retired" in known else ""
        rpm, tpm = known.get("rpm", "-"), known.get("tpm", "-")
        click.echo(f"{name:<22} {known['model']:<38} {usd:>15} {rpm:>6} {tpm:>9}  {known['as_of']}{off}")


def _next_steps(project: Project, stop: str) -> list[str]:
    served = f"llamaduo serve --task {project.task} --profile {project.profile}"
    what = {
        "passed": f"{served}   # the champion on 127.0.0.1:{project.serving.port}"
        if project.promotion == "auto"
        else f"llamaduo review --task {project.task} --profile {project.profile}   # then promote, or reject",
        "rounds": f"the same command with --rounds {project.limits.rounds + 2}   # goes on, nothing is done again",
        "plateau": "more or other pairs, or a larger base model; --set limits.plateau_rounds=0 goes on regardless",
        "budget": "the same command with a larger --budget-usd   # goes on, nothing is paid for again",
    }
    return ["mlflow ui   # the runs, their tables, and the versions", what[stop]]
