"""What the pages have people type is known: commands, options, parameters, keys of the configuration."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import mlflow_llamaduo
from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.config import Project, Section
from tools.reference.configuration import section_of

ROOT = Path(__file__).parents[2]
PACKAGE = Path(mlflow_llamaduo.__file__).parent
READ = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("projects/*/README.md")),
]
SECTIONS = {name: kind for name, field in Project.model_fields.items() if (kind := section_of(field))}
POINTS = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def typed(page: str) -> Iterator[tuple[str, list[str]]]:
    """Programs and their arguments: of blocks of code and of code in lines, continued lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|^(    [^\n]+)$|(?<!`)`([^`\n]+)`(?!`)", page, re.MULTILINE | re.DOTALL)
    for line in "\n".join("".join(found) for found in blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|(?!\|)|;", re.sub(r"(?:^|\s)# .*", "", line)):
            words = part.replace("'", '"').split('"')
            plain = " ".join(words[::2]).removeprefix("$ ").split()  # without what is quoted
            for program in ("llamaduo", "mlflow"):
                if plain[:1] == [program] or plain[1:3] == ["-m", "mlflow_llamaduo"]:
                    yield program, plain[3:] if plain[0] == "python" else plain[1:]
                    break


def options_of(command: click.Command) -> set[str]:
    return {each for option in command.params for each in (*option.opts, *option.secondary_opts)} | {"--help"}


def unknown(page: str) -> Iterator[str]:
    """What a page has somebody type that the command line does not know."""
    for program, words in typed(page):
        if program == "llamaduo" and words and re.fullmatch(r"[a-z][a-z-]+", words[0]):
            yield from unknown_options(words)
        elif program == "mlflow" and words[:2] == ["run", "."] and not any("..." in word for word in words):
            yield from unknown_parameters(words)


def unknown_options(words: list[str]) -> Iterator[str]:
    command: click.Command | None = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        first, *words = words
        command = command.commands.get(first)
        if command is None:
            yield f"llamaduo {first}"
    if command is not None:
        known = options_of(command)
        for word in words:
            option = word.split("=")[0].replace("_", "-")
            if option.startswith("--") and re.fullmatch(r"--[a-z-]+", option) and option not in known:
                yield f"llamaduo {command.name} {word}"


def unknown_parameters(words: list[str]) -> Iterator[str]:
    at = next((given for flag, given in pairwise(words) if flag == "-e"), "main")
    if at not in POINTS:
        yield f"mlflow run . -e {at}"
        return
    command = cli.commands["run" if at == "main" else at]
    for flag, given in pairwise(words):
        if flag == "-P" and "--" + given.split("=")[0].replace("_", "-") not in options_of(command):
            yield f"mlflow run . -e {at} -P {given}"


@pytest.mark.parametrize("page", READ, ids=name)
def test_every_command_and_option_of_a_page_is_known(page: Path) -> None:
    assert list(unknown(text(page))) == []


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("`llamaduo runn`", "llamaduo runn"),
        ("```console\n$ llamaduo run --taks x\n```", "llamaduo run --taks"),
        ("`llamaduo keys add --nam x`", "llamaduo add --nam"),
        ("    llamaduo plan --task x \\\n      --rondes 3\n", "llamaduo plan --rondes"),
        ("`mlflow run . -P task=x -P rows_per_rond=3`", "mlflow run . -e main -P rows_per_rond=3"),
        ("`mlflow run . -e plann`", "mlflow run . -e plann"),
    ],
)
def test_a_command_or_option_that_is_none_is_found(page: str, told: str) -> None:
    assert list(unknown(page)) == [told]


def test_there_are_commands_in_the_pages() -> None:
    found = [words for page in READ for _, words in typed(text(page))]

    assert len(found) > 150


def no_keys(page: str) -> Iterator[str]:
    """Dotted keys of the page that the configuration has not."""
    code = "\n".join("".join(found) for found in re.findall(r"^```\w*\n(.*?)^```|`([^`\n]+)`", page, re.M | re.S))
    for key in re.findall(rf"(?<![\w./@:<-])((?:{'|'.join(SECTIONS)})(?:\.[a-z_0-9]+)+)(?![\w/(:-])", code):
        section, *path = key.split(".")
        if not there(SECTIONS[section], path) and not is_file(section, path):
            yield key
    for key in re.findall(r"(?:--set |-P set=)([a-z_.0-9]+)=", code):
        if not there(Project, key.split(".")):
            yield key
    for block in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S):
        tree = yaml.safe_load(block)
        if isinstance(tree, dict) and set(tree) <= {*Project.model_fields, "tasks", "profiles"}:
            yield from (".".join(path) for path in leaves(tree) if not there(Project, path))


def is_file(section: str, path: list[str]) -> bool:
    """A file's name, or a module's: `coverage.jsonl`, `serving.run`."""
    return path[-1] in ("jsonl", "md", "py", "yaml") or any((PACKAGE / section).glob(f"{path[0]}*"))


def leaves(tree: dict[str, Any]) -> Iterator[list[str]]:
    """The paths of a configuration's file; what is said for one task or profile is as if it were said for all."""
    for key, value in tree.items():
        if key in ("tasks", "profiles"):
            for own in value.values():
                yield from leaves(own)
        elif isinstance(value, dict) and key != "from_rows":
            yield from ([key, *path] for path in leaves(value))
        else:
            yield [key]


def there(section: Any, path: list[str]) -> bool:
    """Whether a path of keys leads to one; a gate's rules are keys of their own."""
    first, *rest = path
    if not (isinstance(section, type) and issubclass(section, Section)):
        return False
    if section is SECTIONS["gate"] and first not in section.model_fields:
        return True
    field = section.model_fields.get(first)
    return field is not None and (not rest or there(section_of(field), rest))


@pytest.mark.parametrize("page", READ, ids=name)
def test_every_key_of_the_configuration_in_a_page_is_known(page: Path) -> None:
    assert list(no_keys(text(page))) == []


@pytest.mark.parametrize(
    "page",
    ["`limits.round`", "`--set finetune.rank=8`", "`-P set=limit.rounds=8`", "```yaml\nlimits: {round: 8}\n```"],
)
def test_a_key_that_is_none_is_found(page: str) -> None:
    assert len(list(no_keys(page))) >= 1


def test_there_are_keys_in_the_pages() -> None:
    assert sum(text(page).count(f"`{section}.") for page in READ for section in SECTIONS) > 60
