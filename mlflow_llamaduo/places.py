"""Whether what a command is to write can be written, and its MLflow server is there: tried before anything starts.

Permissions alone do not tell of read-only disks, of /proc, of names that are too long, or of a bucket that is not
there. So a file is written and removed again.
"""

import os
import re
import ssl
import subprocess
import sys
import tempfile
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen
from uuid import uuid4

from mlflow_llamaduo.core.text import without_login
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.files import HOME_VARIABLE, part_of, working_folder

CACHE_VARIABLE = "LLAMADUO_CACHE"
MLFLOWS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
ANSWERS_WITHIN_S = 60
"""How long a storage may take; one that is not there says so after 12 s (S3), or not in many minutes (GCS)."""


def check_working_folder() -> None:
    """That the working folder is one that files can be locked in and SQLite can write to.

    Raises:
        ConfigError: it is a URI, such as s3://bucket, or nothing can be written there.
    """
    if "://" in (given := os.environ.get(HOME_VARIABLE, "")):
        raise ConfigError(
            f"{HOME_VARIABLE}={given}: the working folder is a folder, no URI (it holds locks and an SQLite file); "
            "mount a shared disk, and give finetune.storage the URI for checkpoints"
        )
    if problem := unwritable(working_folder() / "file"):
        said = f"{HOME_VARIABLE}={given}" if given else f"the working folder {working_folder().absolute()}"
        raise ConfigError(f"{said} cannot be written ({problem}): name another folder in {HOME_VARIABLE}")


def check_cache(folder: Path) -> None:
    """That a base model can be kept in its folder of the cache.

    Args:
        folder: the model's; one that is complete already may lie on a disk that is read only.

    Raises:
        ConfigError: LLAMADUO_CACHE is a URI, or nothing can be written there.
    """
    if "://" in (given := os.environ.get(CACHE_VARIABLE, "")):
        raise ConfigError(f"{CACHE_VARIABLE}={given}: the cache of base models is a folder, no URI")
    complete = folder / ".digest"
    if not complete.is_file() and (problem := unwritable(complete)):
        said = f"{CACHE_VARIABLE}={given}" if given else f"the cache {folder.parent}"
        raise ConfigError(f"{said} cannot be written ({problem}): name another folder in {CACHE_VARIABLE}")


def check_mlflow() -> None:
    """That an MLflow server answers where the environment names one; MLflow's own client tries for four minutes.

    Raises:
        ConfigError: none does.
    """
    for name in MLFLOWS:
        uri = without_login(os.environ.get(name, ""))
        if uri.startswith(("http://", "https://")) and (problem := silent(f"{uri.rstrip('/')}/health")):
            raise ConfigError(
                f"{name}={uri}: no MLflow server answers there ({problem}): start it (mlflow server), "
                "or correct the address; without one MLflow keeps its files in the current folder"
            )


def silent(url: str) -> str | None:
    """Why nothing that speaks HTTP answers at `url`, or None where something does, whatever it says."""
    try:
        urlopen(url, timeout=ANSWERS_WITHIN_S).close()  # noqa: S310 - http or https
    except HTTPError:
        return None
    except (OSError, ValueError, HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLError):  # certificates are a matter of MLflow's own settings
            return None
        return str(cause).strip() or type(cause).__name__
    return None


def check_out(*files: Path | None, option: str = "--out") -> None:
    """That files can be written where a command is to write them.

    Args:
        files: to be written; None is one that nobody asked for.
        option: of the command line, for the message.

    Raises:
        ConfigError: one of them is a folder, or no file can be made there.
    """
    for file in files:
        if file is not None and (problem := "it is a folder" if file.is_dir() else unwritable(file)):
            raise ConfigError(f"{option} {file} cannot be written ({problem}): name another place")


def check_storage(storage: str) -> None:
    """That checkpoints can be kept in `finetune.storage`, from this machine.

    Ray Train's controller runs on the driver's machine and writes there first, so this holds for a folder that a
    cluster shares, too.

    Args:
        storage: an absolute folder, or a URL that pyarrow knows.

    Raises:
        ConfigError: nothing can be written there, it does not answer, or the URL holds a key, which a run would log.
    """
    if ":" in storage.partition("://")[2].partition("/")[0].rpartition("@")[0]:
        raise ConfigError(
            "finetune.storage: the URL holds a key; give it in the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY)"
        )
    if "://" not in storage:
        problem = unwritable(Path(storage) / "file")
    else:  # elsewhere: a bucket that does not answer can be left, and pyarrow need not be loaded here
        try:
            probe = subprocess.run(
                [sys.executable, "-m", __name__, storage],
                check=False,
                capture_output=True,
                text=True,
                timeout=ANSWERS_WITHIN_S,
            )
            problem = (probe.stderr.strip() or f"exit code {probe.returncode}") if probe.returncode else None
        except subprocess.TimeoutExpired:
            problem = f"no answer in {ANSWERS_WITHIN_S} s"
    if problem:
        last = problem.splitlines()[-1][:300]
        raise ConfigError(f"finetune.storage {storage} cannot be written from here ({last}): checkpoints go there")


def unwritable(path: Path) -> str | None:
    """Why no file can be made at `path`, or None where one can.

    Tried with folders and a file of the same names, in a folder of our own in the nearest one that there is.
    """
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not there.is_dir():
        return f"{there} is no folder"
    try:
        with tempfile.TemporaryDirectory(prefix=".llamaduo-", dir=there) as probe:
            part = part_of(Path(probe) / path.absolute().relative_to(there))
            part.parent.mkdir(parents=True, exist_ok=True)
            part.touch()
    except OSError as error:
        return f"{there}: {error.strerror}"
    return None


def write_and_remove(storage: str) -> None:
    """Write a file to a storage, in a folder of its own, and remove both.

    Raises:
        OSError, ValueError: pyarrow's, where it cannot.
    """
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(storage)
    folder = f"{path.rstrip('/')}/.llamaduo-{uuid4().hex}"
    system.create_dir(folder, recursive=True)
    with system.open_output_stream(f"{folder}/file") as stream:
        stream.write(b"a file of llamaduo's, to see whether one can be written")
    system.delete_dir(folder)


def main() -> None:
    """In a process of its own: one line, and exit code 1, for a storage that cannot be written."""
    try:
        write_and_remove(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(re.sub(r"\s+", " ", str(error)))


if __name__ == "__main__":
    main()
