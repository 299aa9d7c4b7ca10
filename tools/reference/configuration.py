"""The tree of configuration as tables: key, type with its bounds, default, and the text below the key in the code."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mlflow_llamaduo.config import Gate, Project, Section, ServiceModel
from mlflow_llamaduo.config.gate import DEFAULT, LIMITS
from tools.reference.page import code, prose, table

HEAD = ("key", "type", "default", "what it is")
TYPED = ("task", "folder", "profile")
"""What only --task and --profile say."""
PLAIN = {str: "text", int: "integer", float: "number", bool: "true, false"}


def blocks() -> dict[str, str]:
    """A table for the top level and for each section, and the gate that holds where there is none."""
    sections = {name: kind for name, field in Project.model_fields.items() if (kind := section_of(field))}
    top = {name: field for name, field in Project.model_fields.items() if name not in {*sections, *TYPED}}
    return {
        "config top level": table(
            HEAD,
            (row(Project, name, field) for name, field in ({**top, "gate": Project.model_fields["gate"]}).items()),
        ),
        **{f"config {name}": table(HEAD, rows(kind)) for name, kind in sections.items() if kind is not Gate},
        "config gate": table(HEAD, gate_rows()),
        "config default gate": "```yaml\n" + default_gate() + "```",
        "config of a service LLM": table(HEAD, rows(ServiceModel)),
    }


def rows(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """A row a key; a section that stands in another is told key by key."""
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is None or short(field):
            yield row(section, name, field, prefix)
        else:
            yield from rows(inner, f"{prefix}{name}.")


def row(section: type[BaseModel], name: str, field: FieldInfo, prefix: str = "") -> tuple[str, ...]:
    """Key, type, default, meaning."""
    meaning = meanings(section).get(name)
    if not meaning:
        raise ValueError(f"{section.__name__}.{name}: write below it what it is")
    return code(prefix + name), type_of(field), default_of(name, field), prose(meaning)


def meanings(section: type[BaseModel]) -> dict[str, str]:
    """The text below each key of a class. At run time nobody reads it: pydantic would at every start."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    found = {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for key, text in pairwise(body):
        match key, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                found[name] = inspect.cleandoc(meaning)
    return found


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a key is, if it is one."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def short(field: FieldInfo) -> bool:
    """Whether one value may be given in a section's place."""
    return any(isinstance(each, BeforeValidator) for each in field.metadata)


def type_of(field: FieldInfo) -> str:
    """A type in words, with its bounds."""
    return named(field.annotation, field.metadata)


def named(kind: Any, bounds: Sequence[Any]) -> str:
    """The words for an annotation."""
    inner = get_args(kind)
    match get_origin(kind):
        case None if kind in PLAIN:
            words = PLAIN[kind] + within(bounds)
        case None:  # a section
            words = "section or one value" if any(isinstance(each, BeforeValidator) for each in bounds) else "section"
        case origin if origin is Annotated:
            words = named(inner[0], [*inner[1:], *bounds])
        case origin if origin is Literal:
            words = code(*inner)
        case origin if origin is tuple:
            each = named(inner[0], [])
            words = f"list of {each}" if each.startswith("`") else f"list, each {each}"
        case origin if origin is dict:
            words = f"sections by {named(inner[0], [])}"
        case _:  # a union
            words = ", ".join(named(each, bounds) for each in inner if each is not NoneType)
    return words


def within(bounds: Sequence[Any]) -> str:
    """Bounds in words; those of pydantic's `Field` are one level down."""
    flat = [one for each in bounds for one in (each, *getattr(each, "metadata", ()))]
    low = next((f"{one.ge:g}" for one in flat if isinstance(one, Ge)), None)
    above = next((f"{one.gt:g}" for one in flat if isinstance(one, Gt)), None)
    high = next((f"{one.le:g}" for one in flat if isinstance(one, Le)), None)
    below = next((f"{one.lt:g}" for one in flat if isinstance(one, Lt)), None)
    start = low or (above and f"above {above}")
    if high or below:
        return f", {start} to {high or f'below {below}'}"
    if start:
        return f" {start}" if above else f", at least {start}"
    return ""


def default_of(name: str, field: FieldInfo) -> str:
    """What holds where nobody says anything."""
    if name == "gate":
        return "[below](#gate)"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be set"
    if isinstance(value, ServiceModel):
        return code(value.model)
    if value is None or isinstance(value, bool | str):
        return {None: "not set", True: "true", False: "false", "": "empty"}.get(value) or code(str(value))
    if isinstance(value, tuple | dict):
        return ", ".join(map(number, value)) or "none"
    return number(value)


def number(value: Any) -> str:
    """As people write it: 50, not 50.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def gate_rows() -> Iterator[tuple[str, ...]]:
    """The gate's settings; its rules stand beside them, each under its figure's name."""
    for name, field in Gate.model_fields.items():
        if name != "rules":
            yield row(Gate, name, field)
    ranges = [
        f"`..._{kind}{'_...' if kind == 'over' else ''}` {low:g} to {high:g}" for kind, (low, high) in LIMITS.items()
    ]
    yield "a figure", "number, or `at_least` and `by`", "", "; ".join(["0 to 100", *ranges])


def default_gate() -> str:
    """The gate of the code, as a file has it."""
    lines = []
    for name, rule in DEFAULT.items():
        inner = ", ".join(f"{key}: {number(value)}" for key, value in rule.items()) if isinstance(rule, dict) else ""
        lines.append(f"  {name}: {{{inner}}}\n" if inner else f"  {name}: {number(rule)}\n")
    return "gate:\n" + "".join(lines)
