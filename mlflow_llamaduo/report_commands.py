"""`llamaduo report`: the page of an alignment, made again."""

import webbrowser
from pathlib import Path

import click

from mlflow_llamaduo.options import edge, say
from mlflow_llamaduo.places import check_mlflow, check_out


@click.command()
@click.option("--run", "run_id", required=True, metavar="RUN_ID", help="MLflow's id of an alignment, or of a round.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The page as a file too.")
@click.option("--open", "show", is_flag=True, help="Open the file of --out in the browser.")
@edge
def report(run_id: str, out: Path | None, show: bool) -> None:
    """Make report.html of an alignment again: the decision and why, scores, answers, costs, warnings, lineage.

    \b
    llamaduo report --run 0d8a6c2f...
    llamaduo report --run 0d8a6c2f... --out report.html --open

    One file that needs nothing else: no script, no request to anywhere. It is kept with the run in MLflow, with its
    figures as PNG and as pages. Every alignment makes it at its end; this is for one that was stopped.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    if show and out is None:
        raise click.UsageError("--open wants --out")
    check_out(out)
    check_mlflow()
    from mlflow_llamaduo.quiet import hush

    hush()
    from mlflow_llamaduo.report.make import FILE
    from mlflow_llamaduo.report.make import report as make

    run, size = make(run_id, out)
    say(f"{FILE} of run {run}: {size / 1000:,.0f} kB, in MLflow{f' and in {out}' if out else ''}")
    if show and out is not None:
        webbrowser.open(out.resolve().as_uri())
