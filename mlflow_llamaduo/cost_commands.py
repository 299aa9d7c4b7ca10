"""`llamaduo cost`: when the local model pays."""

import json
from pathlib import Path
from typing import Any

import click

from mlflow_llamaduo.config import Costs
from mlflow_llamaduo.options import edge, say

FILE = click.Path(path_type=Path, dir_okay=False)
OFF = (0.2, 0.3, 0.3)


@click.command()
@click.option(
    "--workload", default="light", show_default=True, help="light, heavy, a YAML file, or traces:EXPERIMENT."
)
@click.option("--days", type=click.IntRange(1), default=7, show_default=True, help="Of the traces.")
@click.option(
    "--api",
    default=Costs().api,
    show_default=True,
    help="The service LLM: of the price book, a preset, or litellm's.",
)
@click.option("--server", default=Costs().server, show_default=True, help="Of the price book.")
@click.option("--servers", type=click.IntRange(1), help="How many, instead of what follows from their speed.")
@click.option("--tokens-per-second", type=click.FloatRange(0, min_open=True), help="Of answers, by one server.")
@click.option(
    "--peak", type=click.FloatRange(1), default=Costs().peak, show_default=True, help="Busiest hour over the mean."
)
@click.option("--finetuning-usd", type=click.FloatRange(0), default=800.0, show_default=True, help="Once.")
@click.option("--months", type=click.IntRange(1, 600), default=24, show_default=True, help="Of the table.")
@click.option(
    "--off",
    nargs=3,
    type=click.FloatRange(0, 0.95),
    default=OFF,
    show_default=True,
    metavar="PRICES LOAD SPEED",
    help="How far off they may be, as shares; 0.2 is 20 % more or less.",
)
@click.option("--prices", type=FILE, help="A price book of your own; its entries win.")
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON.")
@click.option("--plot", type=FILE, help="A PNG file: both costs by month.")
@edge
def cost(
    workload: str, days: int, as_json: bool, plot: Path | None, off: tuple[float, float, float], **asked: Any
) -> None:
    """When the local model is cheaper than the service LLM: Table 2 and Figure 4 of the paper, for your load.

    \b
    llamaduo cost                                             the paper's light load, on one L4
    llamaduo cost --workload heavy --tokens-per-second 30     as many servers as that takes
    llamaduo cost --workload traces:support --days 30 --api gpt-4o --server g5.xlarge --tokens-per-second 400
    llamaduo cost --months 24 --json --plot cost.png

    A file holds input_mtok_per_day and output_mtok_per_day, millions of tokens. What a server writes is to be
    measured at your prompts: the metrics of a service under load, or `vllm bench serve`. The band is how far off
    prices, load and speed may be, in all combinations.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are
    from mlflow_llamaduo.core.cost import Uncertain
    from mlflow_llamaduo.loads import load_of
    from mlflow_llamaduo.outlook import Question, look_ahead, told

    outlook = look_ahead(Question(load=load_of(workload, days), off=Uncertain(*off), **asked))
    if plot is not None:
        from mlflow_llamaduo.report.figures import cost_figure

        cost_figure(outlook.row).write_png(plot)
        say(f"{plot} is written")
    click.echo(json.dumps(outlook.row, indent=2) if as_json else "\n".join(told(outlook)))
