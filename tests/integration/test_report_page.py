"""The report in a real browser: three widths, both themes, on paper, and with answers that attack it."""

from pathlib import Path

import mlflow
import pytest

from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.report.make import drawings_of, report
from mlflow_llamaduo.report.page import figure_page, page
from tests.browser import tab
from tests.integration.tracked import recorded
from tests.unit.alignments import told

WIDTHS = (360, 820, 1440)
PLANTED = (
    "<script>window.hacked = 1; document.title = 'hacked'</script>"
    '<img src="http://127.0.0.1:9/x.png" onerror="window.hacked = 1">'
    "</pre></details><svg onload='window.hacked = 1'></svg>"
    "<iframe srcdoc='<script>parent.hacked = 1</script>'></iframe>"
    "<style>body { display: none }</style><base href='http://127.0.0.1:9/'>"
)
LONG = "W" * 4000


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The report of an alignment in a real MLflow, every answer of which is an attack."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("report")
    tracker = recorded(Journal(tmp_path / "work", "one"), PLANTED)
    report(tracker.run_id, tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_planted_scripts_and_handlers_do_nothing(hostile: Path, width: int) -> None:
    with tab(hostile.as_uri(), width=width) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        opened.page.wait_for_timeout(200)

        assert opened.page.evaluate("window.hacked") is None
        assert opened.page.title() == "test: alignment report"
        assert opened.page.locator("text=window.hacked").first.is_visible(), "the attack is there, as text"
        assert opened.page.locator("script, img, iframe, base").count() == 0
        assert opened.requests == [hostile.as_uri()]
        assert opened.errors == []
        assert opened.overflow() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_words_without_a_space_do_not_widen_the_page(tmp_path: Path, width: int, scheme: str) -> None:
    of = told(LONG)
    file = tmp_path / "report.html"
    file.write_text(page(of, drawings_of(of)))
    with tab(file.as_uri(), width=width, scheme="dark" if scheme == "dark" else "light") as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

        assert opened.overflow() == 0
        assert opened.errors == []
        ink, paper = (
            opened.page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
        )
        assert (sum(_rgb(ink)) > sum(_rgb(paper))) == (scheme == "dark"), (ink, paper)


def test_on_paper_what_was_folded_is_printed_and_what_is_for_a_screen_is_not(hostile: Path) -> None:
    with tab(hostile.as_uri(), width=820, scheme="dark") as opened:
        opened.page.emulate_media(media="print")

        assert opened.page.locator("details pre").first.is_visible()
        assert not opened.page.locator("nav").is_visible()
        assert sum(_rgb(opened.page.evaluate("getComputedStyle(document.body).color"))) < 300, "dark ink on paper"
        assert opened.page.pdf(format="A4").startswith(b"%PDF")
        opened.keep("report-print")


def test_a_series_of_a_figure_is_hidden_and_shown_again_without_a_script(tmp_path: Path) -> None:
    drawing = drawings_of(told())["scores"]
    file = tmp_path / "figure.html"
    file.write_text(figure_page(drawing))
    with tab(file.as_uri(), width=820) as opened:
        (key,) = [key for key, label in drawing.series.items() if label == "few-shot"]
        marks = opened.page.locator(f".mark.{key}")
        assert marks.count() == 4
        assert marks.first.is_visible()
        opened.page.get_by_role("checkbox", name="few-shot").uncheck()
        assert not marks.first.is_visible()
        opened.page.get_by_role("checkbox", name="few-shot").check()
        assert marks.first.is_visible()
        assert "few-shot: 45.0" in str(marks.first.locator("title").text_content())
        assert opened.errors == []


def _rgb(colour: str) -> list[float]:
    return [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
