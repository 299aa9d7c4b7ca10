"""A test that is not run guards nothing: every test file must hold tests, under names that pytest collects."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("test_*.py"))
OTHERS = sorted(set(TESTS.rglob("*.py")) - set(FILES))


def name(file: Path) -> str:
    return file.relative_to(TESTS).as_posix()


def collected(code: str) -> list[str]:
    """The tests that pytest finds in a file: functions `test*`, and methods `test*` of classes `Test*`."""
    return list(_tests(ast.parse(code).body))


def _tests(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield node.name
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests(node.body)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_test_file_holds_tests_and_no_name_twice(file: Path) -> None:
    names = collected(file.read_text(encoding="utf-8"))

    assert names
    assert len(names) == len(set(names))  # the second of two equal names hides the first


@pytest.mark.parametrize("kind", ["unit", "contract", "integration", "e2e"])
def test_there_are_tests_of_every_kind(kind: str) -> None:
    assert [file for file in FILES if file.parent.name == kind]


@pytest.mark.parametrize("file", OTHERS, ids=name)
def test_no_file_holds_tests_under_a_name_that_pytest_passes_by(file: Path) -> None:
    assert collected(file.read_text(encoding="utf-8")) == []


def test_everything_that_pytest_collected_here_has_values_to_run_with(request: pytest.FixtureRequest) -> None:
    empty = [item.nodeid for item in request.session.items if "NOTSET" in item.name]

    assert request.node in request.session.items
    assert empty == []  # a parametrized test over an empty list is skipped in silence


@pytest.mark.parametrize(
    "code",
    [
        "",
        "x = 1",
        "def check_it() -> None: ...",
        "class Checks:\n    def test_it(self): ...",
        "async def test_it(): ...",
    ],
)
def test_the_guard_sees_a_file_without_tests(code: str) -> None:
    assert collected(code) == []


def test_the_guard_sees_tests_in_functions_and_in_classes() -> None:
    assert collected("def test_a(): ...\nclass TestB:\n    def test_c(self): ...") == ["test_a", "test_c"]
