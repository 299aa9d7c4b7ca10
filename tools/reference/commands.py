"""The commands as click knows them: what each does, its examples, its options with their values and defaults."""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import yaml
from click.types import FloatRange, IntRange

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.options import LOOP, MODEL, OVERRIDES, project_options
from tools.reference.page import code, prose, table

ROOT = Path(__file__).parents[2]
HEAD = ("option", "value", "if not given", "what it is")
AS_TYPED = "\b"
"""How a docstring marks lines that click leaves as they are: examples."""


@click.command()
@project_options(*LOOP)
def _loop() -> None: ...


ANCHOR = "#options-of-a-project"
NAMES_A_TASK = {"task", "profile"}


def blocks() -> dict[str, str]:
    """The list of commands, the options of all, and a part for each command."""
    return {
        "commands": table(
            ("command", "entry point of `mlflow run . -e`", "what it does"),
            (
                (f"[`{name}`](#{name})", entry_point(name), prose(paragraphs(each)[0]))
                for name, each in cli.commands.items()
            ),
        ),
        "options of a project": table(HEAD, map(row, options(_loop))),
        "each command": "\n\n".join(part(name, each, "##") for name, each in cli.commands.items()),
    }


def entry_point(name: str) -> str:
    """That of MLproject which calls the command."""
    points = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    found = [point for point, how in points.items() if f"mlflow_llamaduo {name} " in f"{how['command']} "]
    return code(*found) + (" (the default)" if "main" in found else "") if found else "none"


def part(name: str, command: click.Command, level: str) -> str:
    """A heading, what the command does, and its own options; those of its commands below it."""
    first, *more = paragraphs(command)
    told = shared(command)
    own = [option for option in options(command) if option not in told]
    lines = [f"{level} {name}", *map(text, [first, *more])]
    lines += [table(HEAD, map(row, own))] if own else []
    lines += [others(told)] if told else []
    if isinstance(command, click.Group):
        lines += [part(f"{name} {each}", below, f"{level}#") for each, below in command.commands.items()]
    return "\n\n".join(line for line in lines if line)


def shared(command: click.Command) -> list[click.Option]:
    """Those of a project's options that it takes: none where it names no task."""
    of_loop = {option.name: option.help for option in options(_loop)}
    found = [option for option in options(command) if of_loop.get(option.name) == option.help]
    return found if {option.name for option in found} >= NAMES_A_TASK else []


def others(told: Sequence[click.Option]) -> str:
    """Where its other options stand."""
    if len(told) == len(options(_loop)):
        return f"And all [options of a project]({ANCHOR})."
    first, last = code(*(option.opts[0] for option in told[:-1])), code(told[-1].opts[0])
    return f"And of the [options of a project]({ANCHOR}): {first} and {last}."


def options(command: click.Command) -> list[click.Option]:
    """Its options, `--help` left out."""
    return [each for each in command.params if isinstance(each, click.Option)]


def paragraphs(command: click.Command) -> list[str]:
    """The help, paragraph by paragraph."""
    return inspect.cleandoc(command.help or "").split("\n\n")


def text(paragraph: str) -> str:
    """A paragraph as Markdown."""
    if paragraph.startswith(AS_TYPED):
        return "```console\n" + "\n".join(example(paragraph.removeprefix(AS_TYPED).strip("\n"))) + "\n```"
    return prose(paragraph)


def example(lines: str) -> Iterator[str]:
    """Lines as they are typed, with the prompt before what begins a command."""
    for line in lines.splitlines():
        typed = re.sub(r" {3,}(?=\S)", lambda gap: f"{gap[0]}# ", line, count=1)  # what follows a gap is a remark
        yield line if line.startswith(" ") else f"$ {typed}"


def row(option: click.Option) -> tuple[str, ...]:
    """Names, value, default, meaning."""
    more = " May be repeated." if option.multiple and "repeated" not in str(option.help) else ""
    return code(*option.opts), value(option), default(option), prose(str(option.help)) + more


def value(option: click.Option) -> str:
    """What is to be typed behind it."""
    kind = option.type
    if option.is_flag or option.type is click.BOOL:
        return "none" if option.is_flag else "none, or `true`"
    if option.metavar:
        return code(option.metavar)
    if isinstance(kind, IntRange | FloatRange):
        number = "integer" if isinstance(kind, IntRange) else "number"
        if kind.min is not None and kind.max is not None:
            return f"{number}, {kind.min:g} to {kind.max:g}"
        return f"{number} above {kind.min:g}" if kind.min_open else f"{number}, at least {kind.min:g}"
    known = {click.INT: "integer", click.FLOAT: "number", click.STRING: "text"}
    return known.get(kind) or ("folder" if getattr(kind, "file_okay", True) is False else "path")


def default(option: click.Option) -> str:
    """What holds where it is not typed."""
    if option.required:
        return "must be given"
    if not option.show_default:
        return code(*keys(str(option.name)))
    given = option.default
    return " ".join(f"{each:g}" for each in given) if isinstance(given, tuple) else code(str(given))


def keys(name: str) -> list[str]:
    """The keys of the configuration that an option is a short way for."""
    found = OVERRIDES.get(name)
    if found:
        return [found]
    models = {"service_llm": "model", **{each: each for each in MODEL}}
    return [f"service_llm.{role}.{models[name]}" for role in ("judge", "generator")] if name in models else []
