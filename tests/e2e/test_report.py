"""The report of a real alignment in a real browser: look at its pictures in build/screenshots."""

import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.browser import tab
from tests.e2e.conftest import Workspace, parents

Done = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.e2e

SECTIONS = ["Decision", "Scores by round", "How scores are spread", "What became of the rows", "Answers side by side"]
SECTIONS += ["What it has cost, and when it pays", "Warnings", "Lineage"]


@pytest.fixture
def file(client: MlflowClient, finished: Done, tmp_path: Path) -> Path:
    """report.html of the alignment of two rounds, as MLflow has it."""
    return Path(client.download_artifacts(parents(client)[0].info.run_id, "report.html", str(tmp_path)))


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (820, "dark"), (1440, "light")])
def test_the_report_is_readable_at_three_widths(file: Path, width: int, scheme: str) -> None:
    with tab(file.as_uri(), width=width, scheme="dark" if scheme == "dark" else "light") as opened:
        opened.keep(f"report-{width}-{scheme}")

        assert opened.page.locator("h2").all_text_contents() == SECTIONS
        assert opened.page.locator("figure svg").count() == 4
        assert opened.overflow() == 0
        opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        opened.page.wait_for_timeout(200)
        for attack in ("<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 1'>"):
            assert opened.page.get_by_text(attack).first.is_visible(), "what the pairs have planted is there, as text"
        assert opened.page.evaluate("window.hacked") is None
        assert opened.page.locator("script, img").count() == 0
        assert opened.errors == []
        assert opened.requests == [file.as_uri()]
        assert opened.overflow() == 0


def test_the_report_tells_the_real_alignment(file: Path, client: MlflowClient) -> None:
    parent = parents(client)[0]
    metrics, text = parent.data.metrics, file.read_text()

    assert len(text.encode()) < 2_000_000
    assert "Not passed: the round limit was reached" in text
    assert f"{metrics['judge/precision_mean']:.1f}" in text
    assert parent.info.run_id in text
    assert "offline stand-in" in text
    assert metrics["ledger/train_seconds"] > 0
    assert metrics["ledger/infer_seconds"] > 0


def test_a_version_leads_to_it_and_llamaduo_makes_it_again(
    workspace: Workspace,
    client: MlflowClient,
    finished: Done,
) -> None:
    run_id = parents(client)[0].info.run_id
    version = client.get_model_version("llamaduo-closed_qa", "1")
    assert version.tags["llamaduo.report"] == f"runs:/{run_id}/report.html"

    done = workspace.llamaduo("report", "--run", run_id, "--out", "again.html")
    assert done.returncode == 0, done.stderr
    assert (workspace.folder / "again.html").stat().st_size > 50_000
