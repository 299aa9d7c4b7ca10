"""The pictures of the documentation: MLflow with an alignment in it, and the report of that alignment.

    make demo && python -m tools.screenshots [RUN_ID]

In the folder where the alignment was run, with Chromium (`make browser`). Without an id: the newest alignment.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.report.make import report
from tests.browser import tab
from tools.servers import free_port, started

IMAGES = Path(__file__).parents[1] / "docs/images"
BUILD = Path("build")
CHARTS = "judge/(precision|similarity)_mean$|cost/(total|training)_usd"
WIDE, SHOWN = 1750, 1300
DRAWN_MS = 6000
"""How long MLflow's page is given for its charts."""


@contextmanager
def mlflow_ui() -> Iterator[str]:
    """MLflow's server on this folder's store, on loopback; its address."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{Path('mlflow.db').resolve()}"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = f"http://127.0.0.1:{port}"
    with started(command, BUILD, environment, f"{address}/health"):
        yield address


def newest() -> str:
    """The newest alignment that has an account."""
    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, "tags.`llamaduo.outcome` != ''", order_by=["start_time DESC"]):
        if any(file.path == "alignment.json" for file in client.list_artifacts(run.info.run_id)):
            return str(run.info.run_id)
    sys.exit("no alignment here: make demo")


def main(run_id: str) -> None:
    """Write docs/images/report.png and docs/images/mlflow.png."""
    IMAGES.mkdir(exist_ok=True)
    BUILD.mkdir(exist_ok=True)
    page = (BUILD / "report.html").resolve()
    hush()
    report(run_id, page)
    with tab(page.as_uri(), width=1000, height=1250) as opened:
        opened.page.screenshot(path=IMAGES / "report.png")
    experiment = MlflowClient().get_run(run_id).info.experiment_id
    with mlflow_ui() as address:
        run = f"{address}/#/experiments/{experiment}/runs/{run_id}"
        with tab(f"{run}/model-metrics", width=WIDE, height=1000) as opened:
            opened.page.wait_for_timeout(DRAWN_MS)
            opened.page.get_by_placeholder("Search metric charts").fill(CHARTS)
            opened.page.wait_for_timeout(DRAWN_MS)
            # Without MLflow's assistant, which stands at the right.
            opened.page.screenshot(path=IMAGES / "mlflow.png", clip={"x": 0, "y": 0, "width": SHOWN, "height": 1000})
        with tab(f"{run}/artifacts/report.html", width=1400, height=1000) as opened:
            opened.page.wait_for_timeout(DRAWN_MS)
            opened.keep("report-in-mlflow", whole=False)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else newest())
