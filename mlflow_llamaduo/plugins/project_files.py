"""A project's folder as the one archive that is sent to a cluster.

We pack it ourselves, and not Ray: it reads .gitignore, and so leaves out data that a user keeps out of git but the
job needs; and it says only after the upload that the archive is too large. Links to folders are not followed.
"""

import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from mlflow_llamaduo.errors import DataError

LIMIT = 100 * 1024**2
"""Bytes that Ray's Jobs API takes (DASHBOARD_CLIENT_MAX_SIZE)."""
SHOWN = 5
LEFT_OUT = (
    *(".git", ".venv*", "venv", ".env", ".env.*", "node_modules", "*.egg-info", "__pycache__", ".ipynb_checkpoints"),
    *(".llamaduo", "mlruns", "mlartifacts", "mlflow.db*"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", ".coverage", ".DS_Store"),
)
"""Names, wherever they are: environments, caches, secrets, and what earlier runs have left."""
EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path, archive: Path, exclude: Sequence[str] = ()) -> int:
    """Write the project's files to a ZIP archive; equal files make equal bytes, so that Ray sends them once.

    Args:
        folder: the project's.
        archive: the file to write.
        exclude: patterns of names, or of paths below the folder, that are left out besides `LEFT_OUT`.

    Returns:
        Its size in bytes.

    Raises:
        DataError: it is larger than Ray takes; the message names the largest files.
    """
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in _files(folder, folder, (*LEFT_OUT, *exclude)):
            name = file.relative_to(folder).as_posix()
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if file.stat().st_mode & 0o100 else 0o644) << 16
            with file.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                while block := source.read(1024**2):
                    target.write(block)
            sizes[name] = packed.getinfo(name).compress_size
            if sum(sizes.values()) > 10 * LIMIT:
                break  # enough is known; do not fill the disk
    size = archive.stat().st_size
    if size > LIMIT:
        raise DataError(_too_large(folder, size, sizes))
    return size


def _files(folder: Path, root: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        below = path.relative_to(root).as_posix()
        if any(fnmatch(path.name, pattern) or fnmatch(below, pattern.rstrip("/")) for pattern in patterns):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path, root, patterns)
        elif path.is_file():
            yield path


def _too_large(folder: Path, size: int, sizes: dict[str, int]) -> str:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:SHOWN]
    told = ", ".join(f"{name} ({sizes[name] / 1024**2:.0f} MiB)" for name in largest)
    return (
        f"{folder} is {size / 1024**2:.0f} MiB packed, and Ray takes {LIMIT // 1024**2}; the largest files: {told}. "
        'Leave out what the job does not need: "exclude": ["*.bin", "notebooks"]'
    )
