"""The tree of errors: what each is, the exit code of a command that ends with it, and what to do."""

import inspect

from mlflow_llamaduo import errors
from mlflow_llamaduo.errors import LlamaDuoError
from tools.reference.page import code, prose, table


def blocks() -> dict[str, str]:
    """One table, in the order of the module."""
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LlamaDuoError)]
    return {"errors": table(("error", "is also", "exit code", "when", "what to do"), map(row, found))}


def row(kind: type[LlamaDuoError]) -> tuple[str, ...]:
    """Name, bases, exit code, both paragraphs of its docstring."""
    when, what_to_do = inspect.cleandoc(str(kind.__doc__)).split("\n\n")
    bases = [base.__name__ for base in kind.__bases__]
    return code(kind.__name__), code(*bases), str(kind.exit_code), prose(when), prose(what_to_do)
