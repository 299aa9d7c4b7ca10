"""The `llamaduo` command: the whole loop, each stage alone, and serving.

Exit codes: 0 done (whatever the gate said), 1 a stage failed, 2 bad configuration or data, 3 with --strict when the
gate was not passed, 130 stopped by Ctrl-C. Heavy libraries are imported inside the commands that need them.
"""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

from mlflow_llamaduo import __version__
from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.errors import ConfigError, DataError, LlamaDuoError

P = ParamSpec("P")

OVERRIDES = {
    "base_model": "base_model",
    "rounds": "limits.rounds",
    "rows_per_round": "synthesis.rows_per_round",
    "gate": "gate",
    "budget_usd": "limits.budget_usd",
    "promotion": "promotion",
    "epochs": "finetune.epochs",
    "coverage": "coverage.path",
    "responses_per_prompt": "inference.responses_per_prompt",
    "judge_repeats": "judging.repeats",
}


def say(line: str) -> None:
    """One line to the person at the terminal; results go to standard output, this does not."""
    click.echo(f"llamaduo: {line}", err=True)


def edge(command: Callable[P, None]) -> Callable[P, None]:
    """Deliberate errors become one line and an exit code; anything else is a bug and keeps its traceback."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except LlamaDuoError as error:
            for line in str(error).splitlines():
                say(line)
            sys.exit(2 if isinstance(error, ConfigError | DataError) else 1)
        except KeyboardInterrupt:
            say("stopped; the same command goes on from here, and nothing that is finished is done again")
            sys.exit(130)

    return guarded


def project_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which project, and what of it to change; the command gets a `project`."""

    @wraps(command)
    def loaded(*, task: str, profile: str, service_llm: str | None, set_: tuple[str, ...], **given: Any) -> None:
        overrides = {OVERRIDES[name]: given.pop(name) for name in list(given) if name in OVERRIDES}
        if overrides.get("coverage.path"):
            overrides["coverage.path"] = str(Path(overrides["coverage.path"]).absolute())
        overrides |= _service_llm(service_llm) | _settings(set_)
        command(project=load(task, profile, overrides), **given)

    for option in reversed(
        [
            click.option("--task", default="closed_qa", show_default=True, help="A folder of projects/."),
            click.option("--profile", default="local", show_default=True, help="A file of projects/profiles/."),
            click.option("--base-model", help="The local model: a folder, or a name on the model hub."),
            click.option("--service-llm", help="Judge and generator: a litellm name (openai/gpt-4o), or offline."),
            click.option("--rounds", type=int, help="Fine-tunings at most."),
            click.option("--rows-per-round", type=int, help="Synthetic pairs to ask for in a round."),
            click.option("--gate", help="A least value for both means (70), or figure=value,..."),
            click.option("--budget-usd", type=float, help="Dollars that the service LLM may cost."),
            click.option("--promotion", help="auto: a version that passes is served; review: a person decides."),
            click.option("--epochs", type=int, help="Epochs of a fine-tuning."),
            click.option("--coverage", help="A JSONL file of pairs, instead of the task's own."),
            click.option("--responses-per-prompt", type=int, help="K, answers to each test prompt."),
            click.option("--judge-repeats", type=int, help="M, judgings of each answer."),
            click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Any key: finetune.lora_rank=8."),
        ]
    ):
        loaded = option(loaded)
    return edge(loaded)


@click.group(context_settings={"token_normalize_func": lambda name: name.replace("_", "-"), "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Move one task from a paid service LLM to a small local model you own.

    \b
    llamaduo plan --task closed_qa       what a run would ask for, and its dollars
    llamaduo run --task closed_qa        the whole loop (also: mlflow run . -P task=closed_qa)
    llamaduo serve --task closed_qa      the champion behind an OpenAI-compatible endpoint

    The other commands are the stages of the loop, each alone, JSONL in and out.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are


@cli.command()
@click.option("--fresh", is_flag=True, help="Begin anew instead of going on; finished stages are still used.")
@click.option("--strict", is_flag=True, help="Exit with 3 when the gate was not passed.")
@project_options
def run(project: Project, fresh: bool, strict: bool) -> None:
    """The whole loop: collect, fine-tune, judge, grow, until the gate passes or a limit stops it.

    Run the same command again after a crash or Ctrl-C: it goes on with the unfinished stage.
    """
    from mlflow_llamaduo.preflight import check

    parts = check(project)  # before the imports below, which take seconds

    from mlflow_llamaduo import wiring
    from mlflow_llamaduo.tracking.tables import summary

    outcome = wiring.run(project, parts, fresh=fresh, say=say)
    click.echo("\n" + summary(outcome.state) + "\n")
    if outcome.detail:
        say(outcome.detail)
    click.echo(f"stopped: {outcome.stop}. What to do next:")
    for line in _next_steps(project, outcome.stop):
        click.echo(f"  {line}")
    if strict and outcome.stop != "passed":
        sys.exit(3)


@cli.command()
@project_options
def plan(project: Project) -> None:
    """What a run would ask of the service LLM: calls, tokens and dollars, stage by stage. Nothing is spent."""
    from mlflow_llamaduo.plan import plan as planned
    from mlflow_llamaduo.preflight import collect, missing

    parts = collect(project)
    click.echo(f"task {project.task}, profile {project.profile}, base model {project.base_model}")
    click.echo(f"pairs: {len(parts.train)} train, {len(parts.dev)} dev, {len(parts.test)} test")
    recipe = project.finetune
    place = f"{recipe.gpus_per_worker} GPU" if recipe.gpus_per_worker else "CPU"
    click.echo(
        f"fine-tuning: {recipe.quantization}, rank {recipe.lora_rank}, {recipe.epochs} epochs, "
        f"{recipe.workers} worker(s) with {place} each"
    )
    rows = planned(project, parts)
    for row in rows:
        click.echo(
            f"  {row.stage:<22} {row.model:<28} {row.calls:>7} calls {row.input_tokens:>10} tokens in "
            f"{row.output_tokens:>10} out {row.usd:>9.2f} dollars"
        )
    total = sum(row.usd for row in rows)
    click.echo(f"about {total:.2f} dollars if all rounds are run; the budget is {project.limits.budget_usd:.2f}")
    for problem in missing(project):
        say(f"before a run: {problem}")


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder for train, dev and test.")
@project_options
def coverage(project: Project, out: Path) -> None:
    """Stage 1: read and check the coverage pairs, and split them once."""
    from mlflow_llamaduo import steps

    steps.coverage(project, out, say)


@cli.command()
@click.option("--train", type=click.Path(path_type=Path), required=True, help="JSONL of pairs to learn.")
@click.option("--dev", type=click.Path(path_type=Path), required=True, help="JSONL of pairs that choose the epoch.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The adapter's folder.")
@project_options
def finetune(project: Project, train: Path, dev: Path, out: Path) -> None:
    """Stage 2: train an adapter with QLoRA on Ray Train."""
    from mlflow_llamaduo import steps

    steps.finetune_pairs(project, train, dev, out, say)


@cli.command()
@click.option("--in", "in_", type=click.Path(path_type=Path), required=True, help="JSONL of pairs to answer.")
@click.option("--adapter", type=click.Path(path_type=Path), help="An adapter's folder; without it the base answers.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSONL of responses.")
@project_options
def infer(project: Project, in_: Path, adapter: Path | None, out: Path) -> None:
    """Stage 3: let the local model answer prompts."""
    from mlflow_llamaduo import steps

    steps.infer(project, in_, adapter, out, say)


@cli.command()
@click.option("--in", "in_", type=click.Path(path_type=Path), required=True, help="JSONL of responses.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSONL of verdicts.")
@project_options
def judge(project: Project, in_: Path, out: Path) -> None:
    """Stage 4: let the service LLM judge responses: rows of id, instruction, reference, response."""
    from mlflow_llamaduo import steps

    steps.judge_responses(project, in_, out, say)


@cli.command()
@click.option("--in", "in_", type=click.Path(path_type=Path), required=True, help="JSONL of seed pairs.")
@click.option("--test", type=click.Path(path_type=Path), help="JSONL of held-out pairs that nothing may give away.")
@click.option("--batch", type=int, default=1, show_default=True, help="Another number asks for other pairs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSONL of new pairs.")
@project_options
def synthesize(project: Project, in_: Path, test: Path | None, batch: int, out: Path) -> None:
    """Stage 5: let the service LLM write pairs like the seeds; keep the new and clean ones."""
    from mlflow_llamaduo import steps

    steps.synthesize_pairs(project, in_, test, batch, out, say)


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), help="On 127.0.0.1.")
@project_options
def serve(project: Project, port: int | None) -> None:
    """The champion behind POST /v1/chat/completions on 127.0.0.1, until Ctrl-C."""
    from mlflow_llamaduo.serving import serve as start

    start(project, port=port or project.serving.port, say=say)


def _service_llm(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    judge_, generator = ("offline/judge", "offline/teacher") if name == "offline" else (name, name)
    return {"service_llm.judge": judge_, "service_llm.generator": generator}


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    for setting in given:
        if "=" not in setting:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, such as finetune.lora_rank=8")
    return dict(setting.split("=", 1) for setting in given)


def _next_steps(project: Project, stop: str) -> list[str]:
    served = f"llamaduo serve --task {project.task} --profile {project.profile}"
    what = {
        "passed": f"{served}   # the champion on 127.0.0.1:{project.serving.port}"
        if project.promotion == "auto"
        else f"review {project.registered_model}@challenger, and give it the alias champion to serve it",
        "rounds": f"the same command with --rounds {project.limits.rounds + 2}   # goes on, nothing is done again",
        "plateau": "more or other pairs, or a larger base model; --set limits.plateau_rounds=0 goes on regardless",
        "budget": "the same command with a larger --budget-usd   # goes on, nothing is paid for again",
    }
    return ["mlflow ui   # the runs, their tables, and the versions", what[stop]]
