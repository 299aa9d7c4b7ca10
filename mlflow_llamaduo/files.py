"""Files as the project writes and reads them: whole or not at all."""

import codecs
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout

from mlflow_llamaduo.errors import DataError, StageError

T = TypeVar("T")

HOME_VARIABLE = "LLAMADUO_HOME"
"""Names the working folder: on a cluster it must outlive the job, whose own folder is thrown away."""

SHOWN = 50
"""Bad rows that are told one by one; of more only the number."""


def working_folder() -> Path:
    """`$LLAMADUO_HOME`, or `.llamaduo` in the current folder."""
    return Path(os.environ.get(HOME_VARIABLE) or ".llamaduo").expanduser()


def part_of(path: Path) -> Path:
    """A name of its own for a file or folder while it is written."""
    return path.with_name(f".{path.name}.{uuid4().hex}.part")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a process that died, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing_atomic(path: Path) -> Iterator[TextIO]:
    """A text file to write line by line; it takes the name `path` when the block ends well."""
    with writing_bytes_atomic(path) as stream:
        text = TextIOWrapper(stream, encoding="utf-8", newline="")
        yield text
        text.detach()  # flushes, and leaves the file open


@contextmanager
def writing_bytes_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it takes the name `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for this process.

    Raises:
        StageError: another process holds it; `what` says what it does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StageError(f"{what} by another process ({path}); wait for it, or change a parameter") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `path` when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    part.mkdir()
    try:
        yield part
        remove(path)
        part.replace(path)
    finally:
        remove(part)


def remove(folder: Path) -> None:
    """Delete a folder and all that is in it; one that is not there is fine."""
    if not folder.exists():
        return
    for file in folder.iterdir():
        if file.is_dir() and not file.is_symlink():
            remove(file)
        else:
            file.unlink()
    folder.rmdir()


def to_jsonl(rows: Iterable[dict[str, Any]]) -> str:
    """One JSON object a line, UTF-8 as it is."""
    return "".join(json.dumps(row, ensure_ascii=False) + os.linesep for row in rows)


def read_jsonl(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """Every row of a JSONL file, as `parse` makes it; see `each_jsonl`."""
    return list(each_jsonl(path, parse))


def each_jsonl(path: Path, parse: Callable[[Any], T]) -> Iterator[T]:
    """The rows of a JSONL file one by one, as `parse` makes them; blank lines are passed over.

    Args:
        path: the file, UTF-8.
        parse: makes a value of a row, or raises ValueError with the reason why it is none.

    Raises:
        DataError: after the last row, if some were bad: file, line and reason of every one.
    """
    if not path.is_file():
        raise DataError(f"no file {path}")
    problems: list[str] = []
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip()
            if not line:
                continue
            try:
                value = _parsed(line, parse)
            except ValueError as error:
                problems.append(f"{path}:{number}: {error}")
            else:
                yield value
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([*problems[:SHOWN], *more]))


def _parsed(line: bytes, parse: Callable[[Any], T]) -> T:
    try:
        row = json.loads(line.decode())
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair breaks every later file
    except UnicodeEncodeError:
        raise ValueError("a text with half a character in it (a lone surrogate)") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(no_json(error)[1]) from error
    return parse(row)


def no_json(error: ValueError | RecursionError) -> tuple[str, str]:
    """Why a line holds no JSON value, as one word (`not_json`, `encoding`, `too_deep`) and in words.

    Args:
        error: what decoding it, or `json.loads`, has raised.
    """
    match error:
        case json.JSONDecodeError():
            place = f"line {error.lineno} column" if error.lineno > 1 else "column"
            return "not_json", f"not JSON: {error.msg} at {place} {error.colno}"
        case UnicodeDecodeError():
            return "encoding", f"not UTF-8: byte {error.object[error.start]:#04x} at column {error.start + 1}"
        case RecursionError():
            return "too_deep", "nested too deeply"
        case _:
            return "not_json", "not JSON: a number of too many digits"


def folder_digest(folder: Path, *, but: Sequence[str] = ()) -> str:
    """16 hexadecimal digits of the SHA-256 over names and contents of the files right below `folder`.

    Args:
        folder: of the files; those that begin with a dot do not count.
        but: patterns of further names that do not count.
    """
    total = hashlib.sha256()
    counted = (f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    for file in sorted(f for f in counted if not any(fnmatchcase(f.name, pattern) for pattern in but)):
        total.update(file.name.encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:16]


def packed(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names in it: how an adapter travels to another machine."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def unpacked(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write such files into a folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder
