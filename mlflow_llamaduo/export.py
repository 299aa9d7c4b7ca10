"""A version as one folder that a machine without any network serves: base, adapter, settings, model card, checksums.

The folder appears whole or not at all. Its parts are what serving reads anyway: `serving.shelf` is what an exported
folder is, `serving.exported` serves it.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlflow_llamaduo.base_models.resolve import CARD, FILES, LICENCES, base_digest
from mlflow_llamaduo.checksums import LARGE, write_sums
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.catalogue import CHAMPION, Model, Pick
from mlflow_llamaduo.errors import ConfigError, DataError, StageError
from mlflow_llamaduo.files import folder_atomic
from mlflow_llamaduo.inference.engine import ADAPTER_CONFIG, WEIGHTS
from mlflow_llamaduo.model_card import Card, licence, model_card
from mlflow_llamaduo.origin import origin_of
from mlflow_llamaduo.pyfunc_model import Package, read_package
from mlflow_llamaduo.serving.exported import SERVE, serve_yaml
from mlflow_llamaduo.serving.shelf import BASE, Shelf
from mlflow_llamaduo.versions import Seen, at_hand, versions

COPIED = (*FILES, "*.model", "vocab.txt", CARD, *LICENCES)
"""What of a base travels."""
BESIDES = 1 << 20
"""Bytes for card, settings and sums."""


@dataclass(frozen=True, slots=True)
class Source:
    """A version, its files, and its base's folder."""

    pick: Pick
    seen: Seen
    folder: Path
    base: Path

    @property
    def base_files(self) -> list[Path]:
        """What of the base travels."""
        found = {file for pattern in COPIED for file in self.base.glob(pattern)}
        return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def export(
    project: Project, number: int | None, to: Path, *, merged: bool, say: Callable[[str], None] = lambda _: None
) -> Pick:
    """Write a version of the project's model into the folder `to`.

    Args:
        project: whose model, and the settings it is served with.
        number: of the version; None is the champion.
        to: a new folder, or an empty one.
        merged: put the adapter into the base's weights.
        say: told a line before every step that takes longer than a moment.

    Raises:
        ConfigError: `to` is not empty, or has not enough room.
        DataError: there is no such version, its files are not to be had, or it cannot be merged.
        StageError: the registry or the base is not to be had, or `to` cannot be written.
    """
    to = to.absolute()
    check_empty(to)
    with at_hand():
        source = _source(project, number)
        origin = origin_of(source.seen.run_id)
    check_room(to, source)
    say(f"{source.pick.name} version {source.pick.number}, base {source.base}")
    try:
        with folder_atomic(to) as part:
            package, dtype = _fill(part, source, merged=merged, say=say)
            _shelve(part, project.task, source.pick)
            (part / SERVE).write_text(serve_yaml(project.task, source.pick.name, project.serving))
            card = Card(
                task=project.task,
                pick=source.pick,
                seen=source.seen,
                package=package,
                origin=origin,
                licence=licence(source.base),
                port=project.serving.port,
                merged=dtype,
            )
            (part / "README.md").write_text(model_card(card))
            say("writing SHA256SUMS")
            write_sums(part)
            check_empty(to)  # the block ends by taking its place
    except OSError as error:
        raise StageError(f"the export to {to} failed, and nothing is there: {error}") from error
    return source.pick


def check_empty(to: Path) -> None:
    """Refuse a place where something is.

    Raises:
        ConfigError: `to` is a file, or a folder with something in it.
    """
    if to.is_dir() and any(to.iterdir()):
        raise ConfigError(f"--to {to} is not empty: name a new folder")
    if to.exists() and not to.is_dir():
        raise ConfigError(f"--to {to} is no folder: name a new one")


def check_room(to: Path, source: Source) -> None:
    """Refuse a disk that is too small, before anything is copied.

    Raises:
        ConfigError: it has fewer bytes free than base and version take.
    """
    files: Sequence[Path] = [*source.base_files, *(file for file in source.folder.rglob("*") if file.is_file())]
    needed = sum(file.stat().st_size for file in files) + BESIDES
    place = next(folder for folder in (to, *to.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ConfigError(f"--to {to} needs {needed:,} bytes, and {free:,} are free there: name another disk")


def _source(project: Project, number: int | None) -> Source:
    name = project.registered_model
    seen = {version.number: version for version in versions(name)}
    if not seen:
        raise DataError(f"{name} has no version yet: llamaduo run --task {project.task} makes the first")
    shelf = Shelf.of_registry()
    pick = shelf.look({project.task: name}).models[project.task].pick(str(number) if number else CHAMPION)
    if pick is None or pick.number not in seen:
        what = f"no version {number} that llamaduo has made" if number else "no champion"
        raise DataError(f"{name} has {what}: llamaduo review lists the versions; name one with --version")
    folder = shelf.folder(pick)
    return Source(pick, seen[pick.number], folder, shelf.base(read_package(folder)))


def _fill(part: Path, source: Source, *, merged: bool, say: Callable[[str], None]) -> tuple[Package, str]:
    """Base and version; the package, and the number format of merged weights."""
    from mlflow_llamaduo.inference import merged as merging

    base, version = part / BASE, part / source.pick.key
    base.mkdir()
    for file in source.base_files:
        if merged and any(file.match(pattern) for pattern in merging.WEIGHTS):
            continue
        if file.stat().st_size > LARGE:
            say(f"copying {file.name}, {file.stat().st_size:,} bytes")
        shutil.copyfile(file, base / file.name)
    left = shutil.ignore_patterns(WEIGHTS, ADAPTER_CONFIG) if merged else None
    shutil.copytree(source.folder, version, ignore=left, copy_function=shutil.copyfile)
    package = read_package(source.folder)
    if not merged:
        return package, ""
    say("merging the adapter into the base's weights")
    dtype = merging.merge(source.base, source.folder / "adapter", base)
    package = replace(package, merged=True, base_digest=base_digest(base))
    (version / "package.json").write_text(json.dumps(asdict(package), indent=2))
    return package, dtype


def _shelve(part: Path, task: str, pick: Pick) -> None:
    """Have the folder's shelf know the version, as champion."""
    model = Model(task, pick.name, {CHAMPION: pick.number}, {pick.number: pick.made})
    Shelf(str(part), live=False).keep(model)
