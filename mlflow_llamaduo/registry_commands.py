"""Who is served, as commands: look at the versions, and move the aliases with a reason that stays."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from getpass import getuser
from typing import Any

import click

from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.core.terminal import plain
from mlflow_llamaduo.errors import ConfigError, DataError, LlamaDuoError
from mlflow_llamaduo.options import PROJECT, edge, flag, with_options
from mlflow_llamaduo.places import check_mlflow

LONGEST_REASON = 2000
"""Characters of a reason: it is part of a tag, and databases differ in what a tag may hold."""
LONGEST_NAME = 200
FOLLOWS = "a running service answers with it within seconds"

reason_option = click.option(
    "--reason", required=True, help=f"Why, for whoever asks later; {LONGEST_REASON:,} characters at most."
)
by_option = click.option("--by", help="Who says so; MLFLOW_TRACKING_USERNAME or the login name if not given.")


def of_task(command: Callable[..., None]) -> Callable[..., None]:
    """The two options that name a registered model; the command gets a `project`, and MLflow is told to be quiet."""

    @wraps(command)
    def loaded(*, task: str, profile: str, **given: Any) -> None:
        from mlflow_llamaduo.quiet import hush

        hush()
        project = load(task, profile)
        check_mlflow()
        try:
            command(project=project, **given)
        except LlamaDuoError as error:  # with what others have written into tags
            raise type(error)(plain(str(error), LONGEST_REASON)) from error

    return with_options(edge(loaded), PROJECT)


@click.command()
@click.option(
    "--version",
    "number",
    type=click.IntRange(1),
    help="To look at closely; the challenger, else the newest, if not given.",
)
@click.option(
    "--answers", type=click.IntRange(0), default=5, show_default=True, help="Prompts whose answers are shown."
)
@click.option("--json", "as_json", is_flag=True, help="The same for programs, as JSON.")
@of_task
def review(project: Project, number: int | None, answers: int, as_json: bool) -> None:
    """All versions of a task's model, and one of them beside the champion.

    \b
    llamaduo review --task closed_qa
    llamaduo review --task closed_qa --version 7 --answers 20

    Scores with 95 % intervals, the gate's rules, dollars, lineage, what people have said, the difference to the
    champion, and the answers in which the two differ most. Nothing is changed.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    from mlflow_llamaduo.review import review as reviewed
    from mlflow_llamaduo.review_table import told

    found = reviewed(project.registered_model, number, answers)
    click.echo(json.dumps(found.row(), indent=1, allow_nan=False) if as_json else told(found))


@click.command()
@click.option("--version", "number", type=click.IntRange(1), help="Its number; the challenger if not given.")
@reason_option
@by_option
@flag(
    "--override",
    "Also where its gate said no, or somebody has rejected it or rolled it back; the version says so for ever.",
)
@of_task
def promote(project: Project, number: int | None, reason: str, by: str | None, override: bool) -> None:
    """Make a version champion; the champion before becomes `previous`.

    \b
    llamaduo promote --task closed_qa --version 7 --reason "shorter, and no worse"

    Who, when and why are tags of the version. Of two promotions at once one wins, and the other is told.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    since, by, reason = _now(), _who(by), _why(reason)
    from mlflow_llamaduo.promotion import Promotions, Word
    from mlflow_llamaduo.versions import at_hand

    name = project.registered_model
    with at_hand():
        promotions = Promotions(name)
        number = number or promotions.alias("challenger")
        if number is None:
            raise DataError(f"{name} has no challenger: name a version with --version (llamaduo review lists them)")
        before = promotions.promote(number, Word(by, reason), override=override, since=since)
    if before == number:
        click.echo(f"{name} version {number} is champion already: no alias was moved")
        return
    kept = f", and version {before} is previous" if before else ""
    click.echo(f"{name} version {number} is champion{kept}; {FOLLOWS}")


@click.command()
@click.option("--version", "number", type=click.IntRange(1), required=True, help="Its number.")
@reason_option
@by_option
@of_task
def reject(project: Project, number: int, reason: str, by: str | None) -> None:
    """Say that a version is not to be served; it is `challenger` no longer.

    \b
    llamaduo reject --task closed_qa --version 7 --reason "invents dates"

    To promote it later takes --override. A champion is not rejected but rolled back.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    by, reason = _who(by), _why(reason)
    from mlflow_llamaduo.promotion import Promotions, Word
    from mlflow_llamaduo.versions import at_hand

    with at_hand():
        Promotions(project.registered_model).reject(number, Word(by, reason, "rejected"))
    click.echo(
        f"{project.registered_model} version {number} is rejected; to promote it all the same takes --override"
    )


@click.command()
@click.option("--version", "number", type=click.IntRange(1), help="To go back to; the alias `previous` if not given.")
@reason_option
@by_option
@of_task
def rollback(project: Project, number: int | None, reason: str, by: str | None) -> None:
    """Make the champion before champion again.

    \b
    llamaduo rollback --task closed_qa --reason "answers in the wrong language since Monday"

    The version that goes says so, and why; to promote it later takes --override.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    since, by, reason = _now(), _who(by), _why(reason)
    from mlflow_llamaduo.promotion import Promotions, Word
    from mlflow_llamaduo.versions import at_hand

    name = project.registered_model
    with at_hand():
        now, was = Promotions(name).rollback(Word(by, reason, "rolled back"), to=number, since=since)
    click.echo(f"{name} version {now} is champion again, and version {was} is rolled back; {FOLLOWS}")


def _now() -> str:
    """When the command began, before MLflow is imported, which takes seconds: of two people who type at once, one is
    told. It has the form of `promotion.now`. The process's own start would be up to a second too early: the kernel
    knows its boot by the second, and two commands of a script, one after the other, would disturb each other.
    """
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _why(reason: str) -> str:
    """A reason in one line that every database takes."""
    said = " ".join(reason.split())
    if not said:
        raise ConfigError("--reason is blank: say why, for whoever asks later")
    if len(said) > LONGEST_REASON:
        raise ConfigError(f"--reason has {len(said)} characters: {LONGEST_REASON} are kept with a version")
    return plain(said, LONGEST_REASON)


def _who(by: str | None) -> str:
    said = by if by is not None else os.environ.get("MLFLOW_TRACKING_USERNAME")
    if said is None:
        try:
            said = getuser()
        except (KeyError, OSError) as error:  # a container whose user has no name
            raise ConfigError("who says so? Set --by: there is no login name here") from error
    said = plain(" ".join(said.split()), LONGEST_NAME)
    if not said:
        raise ConfigError("--by is blank: say who decides")
    return said


REGISTRY = (review, promote, reject, rollback)
