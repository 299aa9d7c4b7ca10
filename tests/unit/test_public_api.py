"""The names that other programs rely on."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import mlflow_llamaduo
from mlflow_llamaduo import errors
from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.rules import Figure
from mlflow_llamaduo.errors import BaseModelError, BudgetError, ConfigError, DataError, LlamaDuoError, StageError
from mlflow_llamaduo.options import OVERRIDES
from tests.unit.builders import card, pair, project

PACKAGE = Path(mlflow_llamaduo.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
EXPORTING = [module for module in MODULES if "__all__" in module.read_text(encoding="utf-8")]


def name(module: Path) -> str:
    return module.relative_to(PACKAGE.parent).as_posix()


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError("no __all__")


def bound(tree: ast.Module) -> set[str]:
    """The names that a module binds at its top level."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
    return names


@pytest.mark.parametrize("module", EXPORTING, ids=name)
def test_what_a_module_exports_is_there_and_in_order(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))

    kind = {name: (not name.isupper(), name[0].islower(), name) for name in exported(tree)}
    assert exported(tree) == sorted(exported(tree), key=lambda name: kind[name])  # constants, classes, functions
    assert set(exported(tree)) <= bound(tree)


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [name(m) for m in MODULES if not ast.get_docstring(ast.parse(m.read_text(encoding="utf-8")))]

    assert silent == []


def test_the_version_is_the_packages() -> None:
    with (PACKAGE.parent / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == mlflow_llamaduo.__version__


def test_the_commands_are_the_loop_its_stages_and_serving() -> None:
    assert set(cli.commands) >= {"run", "plan", "coverage", "finetune", "infer", "judge", "synthesize", "serve"}


def test_every_option_changes_a_key_that_there_is() -> None:
    for key in OVERRIDES.values():
        model: Any = Project
        *path, last = key.split(".")
        for part in path:
            model = model.model_fields[part].annotation
        assert last in model.model_fields


def test_a_scorecards_figures_are_those_that_a_gate_may_ask_for() -> None:
    """And the names of the metrics that other programs read."""
    figures = card().figures()
    assert set(figures) == {
        "precision_mean", "precision_coverage_50", "precision_coverage_70", "judged_share",
        "similarity_mean", "similarity_coverage_50", "similarity_coverage_70",
    }  # fmt: skip
    assert all(Figure.read(name) for name in figures)


def test_a_row_has_the_shape_that_other_programs_read() -> None:
    assert pair("q", "a", category="c").row() == {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "category": "c",
        "source": "coverage",
    }


def test_the_registered_model_is_named_after_the_task() -> None:
    assert project(task="closed_qa").registered_model == "llamaduo-closed_qa"


def test_sampling_of_the_service_llm_is_not_configurable_it_stays_the_providers() -> None:
    assert not {"temperature", "top_p", "seed"} & set(ServiceModel.model_fields)


def test_every_deliberate_error_refines_a_standard_one() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(DataError, ValueError)
    assert issubclass(StageError, RuntimeError)
    assert issubclass(BaseModelError, StageError)
    assert issubclass(BudgetError, RuntimeError)


def test_the_error_tree_in_the_docstring_is_the_tree() -> None:
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LlamaDuoError)]

    assert len(raised) >= 6
    assert all(kind.__name__ in str(errors.__doc__) for kind in raised)


def test_importing_the_package_loads_no_framework() -> None:
    heavy = ("mlflow", "ray", "torch", "transformers", "litellm", "pydantic")
    code = f"import sys, mlflow_llamaduo; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
