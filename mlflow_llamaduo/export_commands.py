"""A version as a folder, as a command."""

from pathlib import Path

import click

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.options import say
from mlflow_llamaduo.registry_commands import of_task


@click.command()
@click.option("--version", "number", type=click.IntRange(1), help="Its number; the champion if not given.")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="A new folder, or an empty one.")
@click.option("--merged", is_flag=True, help="Put the adapter into the base's weights, for other programs too.")
@of_task
def export(project: Project, number: int | None, to: Path, merged: bool) -> None:
    """One folder with all that a machine without any network needs to serve a version.

    \b
    llamaduo export --task closed_qa --to /media/stick/closed_qa
    llamaduo serve --from /media/stick/closed_qa          on the other machine

    Base, adapter, tokenizer, chat template, settings, model card (README.md) and SHA256SUMS.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    from mlflow_llamaduo.export import export as exported

    pick = exported(project, number, to, merged=merged, say=say)
    click.echo(f"{pick.name} version {pick.number} is in {to}; there: llamaduo serve --from {to}")
