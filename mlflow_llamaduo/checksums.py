"""`SHA256SUMS` of a folder, as sha256sum writes it: `sha256sum -c SHA256SUMS` in the folder finds the same.

It tells a copy that was damaged, or a file that somebody changed. It is no signature: who can write to the folder can
write this file too.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from mlflow_llamaduo.errors import DataError

SUMS = "SHA256SUMS"
LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>.+)")
LARGE = 1 << 30
"""Bytes of a file that takes a moment to read: it is told."""


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` over all files of the folder; hidden ones and links to folders are left out.

    Raises:
        DataError: a file's name has a line break or a backslash, which the format writes in another way.
    """
    names = _names(folder)
    if strange := [name for name in names if re.search(r"[\\\r\n]", name)]:
        raise DataError(f"{folder}: a file with a line break or a backslash in its name: {strange[0]!r}")
    (folder / SUMS).write_text("".join(f"{_sum(folder / name)}  {name}\n" for name in names))


def check_sums(folder: Path, say: Callable[[str], None] = lambda _: None, *, but: str = "") -> None:
    """Compare every file of the folder with `SHA256SUMS`.

    Args:
        folder: one that has such a list.
        say: told a line before a large file is read.
        but: a file that may have been changed.

    Raises:
        DataError: a file is missing, another one, or one more in a folder of such files; or there is no such list. It
            names the first.
    """
    listed = _listed(folder / SUMS)
    here = set(_names(folder))
    read = {name.partition("/")[0] for name in listed if "/" in name}
    here = {
        name for name in here if name in listed or name.partition("/")[0] in read
    }  # a log beside them is nobody's
    for name in sorted(listed.keys() | here):
        if name not in here:
            raise DataError(f"{folder}: {name} is missing: copy the folder again")
        if name not in listed:
            raise DataError(f"{folder}: {name} is not in {SUMS}: remove it, or copy the folder again")
    for name, known in sorted(listed.items()):
        file = folder / name
        if file.stat().st_size > LARGE:
            say(f"checking {name}, {file.stat().st_size:,} bytes")
        if name != but and _sum(file) != known:
            raise DataError(f"{folder}: {name} is not the file that was exported ({SUMS}): copy the folder again")


def _listed(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): llamaduo export makes such a folder") from error
    listed = {}
    for number, line in enumerate(lines, start=1):
        found = LINE.fullmatch(line)
        if not found:
            raise DataError(f"{file}: line {number} is not as sha256sum writes it: copy the folder again")
        listed[found["name"]] = found["sum"]
    return listed


def _names(folder: Path) -> list[str]:
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        names += [(below / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(name for name in names if name != SUMS)


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
