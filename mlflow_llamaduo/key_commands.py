"""API keys of the endpoint as commands: each is shown once, and kept as a hash."""

from pathlib import Path

import click

from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.options import edge, say

FILE = click.Path(path_type=Path, dir_okay=False)
file_option = click.option("--file", type=FILE, help="The keys' file; keys.json in the working folder if not given.")


@click.group()
def keys() -> None:
    """Who may ask the endpoint: add, list and revoke API keys.

    \b
    llamaduo keys add --name search-team --rpm 120 --tpm 100000
    llamaduo keys list
    llamaduo keys revoke --name search-team

    A key is printed once; the file holds its SHA-256, its limits and its tasks. A running service reads the file when
    it starts.
    """  # noqa: D301 - click reads the backspace as: keep these lines as they are


@keys.command()
@click.option("--name", required=True, help="Who it is for.")
@click.option("--rpm", type=click.IntRange(0), default=0, show_default=True, help="Requests a minute; 0 is no limit.")
@click.option(
    "--tpm",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Tokens a minute, read and written; 0 is no limit.",
)
@click.option("--task", "tasks", multiple=True, help="A task that it may ask; may be repeated. All if not given.")
@file_option
@edge
def add(name: str, rpm: int, tpm: int, tasks: tuple[str, ...], file: Path | None) -> None:
    """A new key; it is printed on standard output, once."""
    from mlflow_llamaduo.serving.keys import keys_file, new_key, read_keys, write_keys

    file = file or keys_file()
    known = read_keys(file) if file.is_file() else ()
    if name in {key.name for key in known}:
        raise ConfigError(
            f"keys {file}: {name} has a key already: llamaduo keys revoke --name {name}, or another name"
        )
    secret, key = new_key(name, requests_per_minute=rpm, tokens_per_minute=tpm, tasks=tasks)
    write_keys(file, [*known, key])
    say(f"a key for {name}; it is shown this once, and {file} holds its hash")
    click.echo(secret)


@keys.command(name="list")
@file_option
@edge
def list_(file: Path | None) -> None:
    """Names, limits and tasks of the keys."""
    from mlflow_llamaduo.serving.keys import keys_file, read_keys

    click.echo(f"{'name':<24} {'requests/min':>12} {'tokens/min':>12}  tasks")
    for key in read_keys(file or keys_file()):
        limits = [f"{limit or '-':>12}" for limit in (key.requests_per_minute, key.tokens_per_minute)]
        click.echo(f"{key.name:<24} {' '.join(limits)}  {', '.join(key.tasks) or 'all'}")


@keys.command()
@click.option("--name", required=True, help="Whose.")
@file_option
@edge
def revoke(name: str, file: Path | None) -> None:
    """Remove a key; a running service knows it until it is started again."""
    from mlflow_llamaduo.serving.keys import keys_file, read_keys, write_keys

    file = file or keys_file()
    known = read_keys(file)
    if name not in {key.name for key in known}:
        raise ConfigError(f"keys {file}: there is none of {name}; llamaduo keys list shows those that there are")
    write_keys(file, [key for key in known if key.name != name])
    say(f"{name} has no key any more")
