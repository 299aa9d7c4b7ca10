"""Which module may import which, and which library: import-linter's contracts, as they stand in pyproject.toml."""

import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.reference.page import code, table

ROOT = Path(__file__).parents[2]
PACKAGE = "mlflow_llamaduo."


def blocks() -> dict[str, str]:
    """The layers, and for each library the modules that may import it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    return {
        "layers": "```text\n" + "\n".join(layer.replace(PACKAGE, "") for layer in layers) + "\n```",
        "libraries": table(("library", "who may import it"), libraries(contracts)),
    }


def libraries(contracts: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """A row a library, and last what `core` may not."""
    for contract in contracts:
        allowed = defaultdict(list)
        for pair in contract.get("ignore_imports", ()):
            module, library = pair.removeprefix(PACKAGE).split(" -> ")
            allowed[library].append(module)
        for library, modules in sorted(allowed.items()):
            yield code(library), code(*sorted(modules))
    (never,) = [each["forbidden_modules"] for each in contracts if each.get("source_modules") == [f"{PACKAGE}core"]]
    yield code(*never), "not `core`"
