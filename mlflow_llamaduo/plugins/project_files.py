"""A project's folder as the one archive that is sent to a cluster.

We pack it ourselves, and not Ray: it reads .gitignore, and so leaves out data that a user keeps out of git but the
job needs; and it says only after the upload that the archive is too large. Links to folders are not followed.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path

from mlflow_llamaduo.errors import DataError

LIMIT = 100 * 1024**2
"""Bytes that Ray's Jobs API takes (DASHBOARD_CLIENT_MAX_SIZE)."""
SHOWN = 5
LEFT_OUT = (
    *(".git", ".venv*", "venv", "node_modules", "*.egg-info", "__pycache__", ".ipynb_checkpoints"),
    *(".llamaduo", "mlruns", "mlartifacts", "mlflow.db*"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", ".coverage", ".DS_Store"),
)
"""Names, wherever they are: environments, caches, and what earlier runs have left."""
SECRETS = (
    *(".env", ".env.*", "*.env", "secrets", ".secrets", "secrets.*", "credentials.json", "service_account*.json"),
    *(".ssh", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".gnupg", ".vault-token", ".databrickscfg"),
    *(".netrc", ".pypirc", ".npmrc", ".git-credentials", ".dockercfg", ".pgpass", ".htpasswd", ".kaggle"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
)
"""Names of what is likely to hold keys, in any letters, large or small: whoever reaches a cluster reads what a
job was sent. Left out with a word, for it may also be a public certificate that the job needs."""
SOURCE = (".py", ".md", ".rst", ".ipynb", ".sh")
"""Endings of what is written about secrets and holds none: a module secrets.py."""
ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
"""What is in the folder of a Python environment, whatever its name."""
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive's size in bytes, and the paths that were left out because they look like secrets."""

    size: int
    secrets: tuple[str, ...]

    @property
    def told(self) -> str | None:
        """What is to be said of secrets, in one line."""
        if not self.secrets:
            return None
        named, more = ", ".join(self.secrets[:SHOWN]), len(self.secrets) - SHOWN
        return (
            f"not sent, for they look like secrets: {named}{f' and {more} more' if more > 0 else ''}; what the job "
            'needs of them: "include": ["certificate.pem"] in -c, keys by env'
        )


def pack(folder: Path, archive: Path, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> Packed:
    """Write the project's files to a ZIP archive; equal files make equal bytes, so that Ray sends them once.

    Args:
        folder: the project's.
        archive: the file to write.
        exclude: patterns of names, or of paths below the folder, that are left out besides `LEFT_OUT`.
        include: patterns of what is sent although it looks like `SECRETS`.

    Raises:
        DataError: it is larger than Ray takes; the message names the largest files.
    """
    choice = _Choice(folder, (*LEFT_OUT, *exclude), include)
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in choice.files(folder):
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
    return Packed(size, tuple(choice.secrets))


class _Choice:
    """Which files are sent; what looks like a secret is noted."""

    def __init__(self, root: Path, patterns: Sequence[str], include: Sequence[str]) -> None:
        self._root, self._patterns, self._include = root, patterns, include
        self.secrets: list[str] = []

    def files(self, folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if self._matches(path, self._patterns) or self._is_secret(path):
                continue
            if path.is_dir() and not path.is_symlink():
                if not any((path / name).exists() for name in ENVIRONMENTS):
                    yield from self.files(path)
            elif path.is_file():
                yield path

    def _is_secret(self, path: Path) -> bool:
        name = path.name.lower()
        if name.endswith(SOURCE) or not any(fnmatchcase(name, pattern) for pattern in SECRETS):
            return False
        if self._matches(path, self._include):
            return False
        self.secrets.append(path.relative_to(self._root).as_posix() + ("/" if path.is_dir() else ""))
        return True

    def _matches(self, path: Path, patterns: Sequence[str]) -> bool:
        below = path.relative_to(self._root).as_posix()
        return any(fnmatch(path.name, pattern) or fnmatch(below, pattern.rstrip("/")) for pattern in patterns)


def _too_large(folder: Path, size: int, sizes: dict[str, int]) -> str:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:SHOWN]
    told = ", ".join(f"{name} ({sizes[name] / 1024**2:.0f} MiB)" for name in largest)
    return (
        f"{folder} is {size / 1024**2:.0f} MiB packed, and Ray takes {LIMIT // 1024**2}; the largest files: {told}. "
        'Leave out what the job does not need: "exclude": ["*.bin", "notebooks"]'
    )
