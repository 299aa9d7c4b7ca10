"""The report and its figures as artifacts of the alignment's run; the page alone as a file."""

from collections import Counter
from pathlib import Path

from mlflow import MlflowClient

from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.files import write_atomic
from mlflow_llamaduo.report.drawing import PNG, Drawing
from mlflow_llamaduo.report.figures import cost_figure, density_figure, funnel_figure, scores_figure
from mlflow_llamaduo.report.page import MOST_BYTES, figure_page, page
from mlflow_llamaduo.report.read import Told, read, shaped

FILE = "report.html"


def report(run_id: str, out: Path | None = None) -> tuple[str, int]:
    """Make the report of an alignment, and keep it with its run: `report.html`, and `figures/` as HTML and PNG.

    Args:
        run_id: the alignment's run, or one of its rounds'.
        out: a file for the page too.

    Returns:
        The alignment's run, and the bytes of the page.

    Raises:
        DataError: there is no such run, it is no alignment's, or a file of it is not as llamaduo writes it.
        StageError: MLflow cannot be read or written.
    """
    told = read(run_id)
    with shaped(f"alignment.json of run {told.run_id}"):
        drawings = drawings_of(told)
        text = page(told, drawings)
    size = len(text.encode())
    if size > MOST_BYTES:
        raise StageError(f"the report of run {told.run_id} has {size:,} bytes, and {MOST_BYTES:,} are allowed: a bug")
    if out is not None:
        write_atomic(out, text)
    client = MlflowClient()
    client.log_text(told.run_id, text, FILE)
    for drawing in drawings.values():
        client.log_text(told.run_id, figure_page(drawing), f"figures/{drawing.name}.html")
        client.log_figure(told.run_id, drawing.figure, f"figures/{drawing.name}.png", save_kwargs=PNG)
    return told.run_id, size


def drawings_of(told: Told) -> dict[str, Drawing]:
    """The figures that there is something for, by name."""
    counts = {number: Counter(str(row["reason"]) for row in rows) for number, rows in told.rejected.items()}
    found = [scores_figure(told.account), funnel_figure(told.account, counts), cost_figure(told.account["costs"])]
    if told.name in told.models and told.models[told.name].scores:
        found.append(density_figure(told.models, told.name))
    return {drawing.name: drawing for drawing in found}
