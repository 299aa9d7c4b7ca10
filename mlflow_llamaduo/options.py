"""What commands have in common: their options, their way to speak, and how they end."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.errors import ConfigError, LlamaDuoError

P = ParamSpec("P")

OVERRIDES = {
    "base_model": "base_model",
    "rounds": "limits.rounds",
    "rows_per_round": "synthesis.rows_per_round",
    "gate": "gate",
    "budget_usd": "limits.budget_usd",
    "promotion": "promotion",
    "epochs": "finetune.epochs",
    "source": "coverage.source",
    "trace_filter": "coverage.trace_filter",
    "feedback": "coverage.feedback",
    "responses_per_prompt": "inference.responses_per_prompt",
    "judge_repeats": "judging.repeats",
}

MODEL = ("api_base", "api_key_env", "rpm", "tpm", "concurrency")
"""Options that go to the judge and to the generator."""


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
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            say("stopped; the same command goes on from here, and nothing that is finished is done again")
            sys.exit(130)

    return guarded


TYPED = "mlflow_llamaduo.overrides"
"""Where click keeps what was typed of the configuration, for a command that loads more than one project."""


Option = Callable[[Callable[..., None]], Callable[..., None]]

PROJECT: tuple[Option, ...] = (
    click.option("--task", default="closed_qa", show_default=True, help="A folder of projects/."),
    click.option(
        "--profile",
        default="local",
        show_default=True,
        help="A file of projects/profiles/, or a path that ends in .yaml or .yml.",
    ),
)
BASE_MODEL: tuple[Option, ...] = (
    click.option("--base-model", help="The local model: a folder, or a name on the model hub."),
)
SERVICE_LLM: tuple[Option, ...] = (
    click.option("--service-llm", help="Judge and generator: a preset (gpt-4o), litellm's name, or offline."),
    click.option("--api-base", metavar="URL", help="Its server, if not the provider's own."),
    click.option("--api-key-env", metavar="NAME", help="The environment variable that holds its key."),
    click.option("--rpm", type=int, help="Requests a minute that it allows."),
    click.option("--tpm", type=int, help="Tokens a minute that it allows."),
    click.option("--concurrency", type=int, help="Calls that may be open together."),
)
PAIRS: tuple[Option, ...] = (
    click.option(
        "--source",
        "--coverage",
        "source",
        help="The pairs: a file or folder, hub:<dataset>[@<revision>][#<split>], traces:<experiment>.",
    ),
    click.option("--trace-filter", help="MLflow's filter of the traces that are taken."),
    click.option("--feedback", metavar="NAME=VALUE", help="The traces' feedback that says satisfactory."),
)
EPOCHS: tuple[Option, ...] = (click.option("--epochs", type=int, help="Epochs of a fine-tuning."),)
ANSWERS: tuple[Option, ...] = (
    click.option("--responses-per-prompt", type=int, help="K, answers to each test prompt."),
)
REPEATS: tuple[Option, ...] = (
    click.option("--judge-repeats", "--repeats", type=int, help="M, judgings of each answer."),
)
ROWS: tuple[Option, ...] = (
    click.option("--rows-per-round", "--rows", type=int, help="Synthetic pairs to ask for (in a round)."),
)
BUDGET: tuple[Option, ...] = (
    click.option("--budget-usd", type=float, help="Dollars that service LLM and machines may cost."),
)
LIMITS: tuple[Option, ...] = (
    click.option("--rounds", type=int, help="Fine-tunings at most."),
    click.option("--gate", help="A least value for both means (70), or figure=value,..."),
    click.option("--promotion", help="auto: a version that passes is champion at once; review: a person decides."),
)
LOOP = (BASE_MODEL, SERVICE_LLM, LIMITS, ROWS, BUDGET, EPOCHS, PAIRS, ANSWERS, REPEATS)
"""What the whole loop can be told; a stage alone takes what it uses of it."""
ANY_KEY: tuple[Option, ...] = (
    click.option(
        "--set",
        "set_",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any key of the configuration: finetune.lora_rank=8. May be repeated.",
    ),
)


def project_options(*used: tuple[Option, ...]) -> Option:
    """The options that say which project, and what of it to change; the command gets a `project`.

    Args:
        used: what the command makes use of, beside the project's name and `--set`.
    """

    def given_a_project(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def loaded(*, opened: Callable[[], Project], **given: Any) -> None:
            command(project=opened(), **given)

        return late_project_options(*used)(loaded)

    return given_a_project


def late_project_options(*used: tuple[Option, ...]) -> Option:
    """The same options; the command gets `opened`, which loads the project, since it may do without its files."""

    def given_a_way_to_it(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def loaded(*, task: str, profile: str, set_: tuple[str, ...], **given: Any) -> None:
            overrides = {OVERRIDES[name]: given.pop(name) for name in list(given) if name in OVERRIDES}
            if overrides.get("coverage.source"):
                overrides["coverage.source"] = _from_here(overrides["coverage.source"])
            of_models = {name: given.pop(name, None) for name in MODEL}
            overrides |= _service_llm(given.pop("service_llm", None), of_models) | _settings(set_)
            click.get_current_context().meta[TYPED] = overrides
            command(opened=lambda: load(task, profile, overrides), **given)

        return with_options(edge(loaded), PROJECT, *used, ANY_KEY)

    return given_a_way_to_it


def with_options(command: Callable[..., None], *groups: tuple[Option, ...]) -> Callable[..., None]:
    """The command with these options, in the order in which `--help` lists them."""
    for option in reversed([option for group in groups for option in group]):
        command = option(command)
    return command


def _from_here(source: str) -> str:
    """A path is one of the current folder, not of the project's."""
    from mlflow_llamaduo.coverage.formats import is_known

    path = Path(source)
    return str(path.absolute()) if path.exists() or is_known(path) else source


def flag(name: str, text: str) -> Callable[[Any], Any]:
    """`--name`, and also `--name true`, which is how MLflow passes `-P name=true`."""
    return click.option(name, is_flag=False, flag_value=True, default=False, type=bool, metavar="", help=text)


yes_option = flag("--yes", "Go on though it is likely to cost more than limits.ask_above_usd.")


def _service_llm(name: str | None, of_models: dict[str, Any]) -> dict[str, Any]:
    """What is said of the service LLM, for judge and generator alike."""
    names = {"judge": name, "generator": name}
    if name == "offline":
        names = {"judge": "offline/judge", "generator": "offline/teacher"}
    overrides: dict[str, Any] = {}
    for role, model in names.items():
        said = {"model": model, **of_models}
        overrides |= {f"service_llm.{role}.{key}": value for key, value in said.items() if value is not None}
    return overrides


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    for setting in given:
        if "=" not in setting:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, such as finetune.lora_rank=8")
    settings = dict(setting.split("=", 1) for setting in given)
    short = ("service_llm.judge", "service_llm.generator")  # for their models' names
    return {f"{key}.model" if key in short else key: value for key, value in settings.items()}
