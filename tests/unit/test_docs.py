"""The documentation says what the code does: pages that are made of it, all reachable, and figures that hold."""

import re
from pathlib import Path

import pytest

import mlflow_llamaduo
from mlflow_llamaduo.config import load
from mlflow_llamaduo.core.rules import FIGURES
from mlflow_llamaduo.judging.reference import SCORES
from mlflow_llamaduo.preflight import collect
from tools.reference.page import with_blocks
from tools.reference.pages import made

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PACKAGE = Path(mlflow_llamaduo.__file__).parent
INTERNAL = {"LLAMADUO_DEPLOYMENT"}
"""What a deployment tells its replicas: nobody sets it."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


MADE = made()


@pytest.mark.parametrize("page", MADE, ids=name)
def test_a_page_of_the_reference_is_what_the_code_makes_of_it(page: Path) -> None:
    assert text(page) == MADE[page], f"{name(page)} is not what the code says: run `make reference`, and commit it"


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("no block", "a"),
        ("<!-- make reference: a -->\n\n<!-- end -->\n<!-- make reference: b -->\n\n<!-- end -->", "b"),
        ("<!-- make reference: a -->\n\n<!-- end -->\n<!-- make reference: a -->\n\n<!-- end -->", "a"),
    ],
)
def test_a_block_that_is_missing_unknown_or_there_twice_is_an_error(page: str, told: str) -> None:
    with pytest.raises(ValueError, match=rf"\['{told}'\]"):
        with_blocks(page, {"a": "made"})


def test_figures_and_reference_metrics_are_all_explained() -> None:
    page = text(DOCS / "reference/metrics.md")
    named = [figure.replace("<threshold>", "<t>") for figure in FIGURES]

    assert [figure for figure in (*named, *SCORES) if f"`{figure}`" not in page] == []


def test_every_environment_variable_of_ours_is_in_the_reference() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in (*PACKAGE.rglob("*.py"), ROOT / "serve/app.py"))
    ours = set(re.findall(r"[\"'](LLAMADUO_[A-Z_]+)[\"']", code))
    page = text(DOCS / "reference/configuration.md")

    assert len(ours) >= 5
    assert [variable for variable in sorted(ours - INTERNAL) if f"`{variable}`" not in page] == []


def test_every_module_and_folder_stands_in_the_architecture() -> None:
    page = text(DOCS / "explanation/architecture.md")
    modules = [file.name for file in PACKAGE.glob("*.py") if file.name != "__init__.py"]
    folders = [f"{file.parent.name}/" for file in PACKAGE.glob("*/__init__.py")]

    assert len(modules) > 40
    assert [each for each in sorted((*modules, *folders)) if each not in page] == []


def test_every_page_is_in_the_navigation_and_every_how_to_in_the_index() -> None:
    menu = text(ROOT / "mkdocs.yml")
    index = text(DOCS / "index.md")
    pages = [page.relative_to(DOCS).as_posix() for page in PAGES]

    assert [page for page in pages if page not in menu] == []
    assert [page for page in pages if page.startswith(("how-to/", "reference/")) and f"({page})" not in index] == []


def test_every_decision_is_in_the_list_of_decisions() -> None:
    listed = text(DOCS / "decisions/index.md")

    assert [page.name for page in (DOCS / "decisions").glob("0*.md") if f"({page.name})" not in listed] == []


def test_the_index_opens_with_the_four_words_and_has_one_diagram() -> None:
    page = text(DOCS / "index.md")

    assert re.findall(r"^(\w[\w-]*)\n:   ", page, re.MULTILINE) == ["Coverage", "Fine-tune", "Judge", "Grow"]
    assert len(re.findall(r"^```", page, re.MULTILINE)) == 2
    assert page.index("Coverage\n:") < page.index("```")


def test_the_quickstart_tells_the_split_of_the_pairs_that_are_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    monkeypatch.chdir(tmp_path)
    parts = collect(load("closed_qa")).parts
    train, dev, test = (len(part) for part in (parts.train, parts.dev, parts.test))

    page = text(DOCS / "quickstart.md")
    assert f"the {train + dev + test} pairs" in page
    assert f"{train} train, {dev} dev, {test} test" in page


def test_the_readme_begins_with_the_quickstarts_command() -> None:
    (command,) = re.findall(r"^\$ (pip install .*)$", text(DOCS / "quickstart.md"), re.MULTILINE)

    assert f"    {command} " in text(ROOT / "README.md")
