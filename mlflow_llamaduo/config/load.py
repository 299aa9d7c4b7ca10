"""From files and the command line to one `Project`, or to one line for every problem."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mlflow_llamaduo.config.gate import SETTINGS, parsed
from mlflow_llamaduo.config.sections import nearest
from mlflow_llamaduo.config.tree import Project
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.yaml_file import read_yaml


def load(task: str, profile: str = "local", overrides: Mapping[str, Any] | None = None) -> Project:
    """Read `projects/<task>/duo.yaml`, the profile and the overrides into one tree.

    Args:
        task: a folder of `projects/`.
        profile: a file of `projects/profiles/`, without `.yaml`, or a path to a YAML file.
        overrides: values by dotted key, such as `{"limits.rounds": 2}`; None values are not set.

    Raises:
        ConfigError: with one line for every problem found.
    """
    root = projects_folder()
    tasks = sorted(f.parent.name for f in root.glob("*/duo.yaml"))
    if task not in tasks:
        raise ConfigError(f"unknown task {task!r}{nearest(task, tasks)}; known: {', '.join(tasks)}")
    profile_file = _profile_file(root, profile)
    duo = root / task / "duo.yaml"
    sources = {duo: _read(duo), profile_file: _of_task(_read(profile_file), profile_file, task, tasks)}
    sources |= {
        Path(f"{duo} (profiles)"): _settle(sources, duo, profile_file, _profiles(root)),
        Path("command line"): _tree({k: v for k, v in (overrides or {}).items() if v is not None}),
    }
    for source, tree in sources.items():
        if taken := {"task", "folder", "profile"} & set(tree):
            raise ConfigError(f"{source}: {', '.join(sorted(taken))}: these are said by --task and --profile alone")
    merged: dict[str, Any] = {"task": task, "folder": root / task, "profile": profile}
    for tree in sources.values():
        merged = _merge(merged, tree)
    try:
        return Project.model_validate(merged)
    except ValidationError as error:
        lines = [_explain(problem, sources) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def projects_folder() -> Path:
    """`$LLAMADUO_PROJECTS`, or `projects/` in the current folder.

    Raises:
        ConfigError: there is no such folder.
    """
    root = Path(os.environ.get("LLAMADUO_PROJECTS", "projects"))
    if not root.is_dir():
        raise ConfigError(
            f"no folder {root.absolute()}: run llamaduo in a clone of the project, or set LLAMADUO_PROJECTS"
        )
    return root


def _profile_file(root: Path, profile: str) -> Path:
    if profile.endswith((".yaml", ".yml")):
        file = Path(profile)
        if not file.is_file():
            raise ConfigError(f"no profile file {file.absolute()}")
        return file
    known = _profiles(root)
    if profile not in known:
        raise ConfigError(f"unknown profile {profile!r}{nearest(profile, known)}; known: {', '.join(known)}")
    return root / "profiles" / f"{profile}.yaml"


def _profiles(root: Path) -> list[str]:
    """The names of the profiles that there are: `local`, `a100/llama3.2-1b`."""
    folder = root / "profiles"
    return sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.yaml"))


def _read(file: Path) -> dict[str, Any]:
    tree = read_yaml(file)
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected keys and values at the top level")
    return tree


def _tree(dotted: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"command line: {key} and {part} cannot both be set")
        if isinstance(branch.get(last), dict):
            raise ConfigError(f"command line: {key} and a key below it cannot both be set")
        branch[last] = value
    return tree


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, branch by branch.

    The gate is one value and is replaced whole, but where only its settings are named; so is a service LLM that
    another model takes the place of: the key, the price and the limits of the old one are not the new one's.
    """
    merged = dict(below)
    for key, new in above.items():
        old, value = merged.get(key), new
        if key in ("judge", "generator"):  # `judge: gpt-4o` is short for `judge: {model: gpt-4o}`
            old, value = ({"model": side} if isinstance(side, str) else side for side in (old, new))
        if key == "gate" and not _whole(value):
            merged[key] = {**(parsed(old) or {}), **parsed(value)}
        elif isinstance(old, dict) and isinstance(value, dict) and key != "gate" and not _another(old, value):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _of_task(profile: dict[str, Any], file: Path, task: str, known: list[str]) -> dict[str, Any]:
    """The profile with what it says of this task over it, as the paper has another rate for coding."""
    own = profile.pop("tasks", None) or {}
    if not isinstance(own, dict) or not all(isinstance(tree, dict) for tree in own.values()):
        raise ConfigError(f"{file}: tasks: expected a section of the profile's own keys for each task it names")
    for name in own:
        if name not in known:
            raise ConfigError(f"{file}: tasks: unknown task {name!r}{nearest(str(name), known)}")
    return _merge(profile, own.get(task, {}))


def _settle(sources: dict[Path, dict[str, Any]], duo: Path, profile_file: Path, known: list[str]) -> dict[str, Any]:
    """What the task says of the profile, taken out of its file; it goes over the profile, as its source does."""
    own = sources[duo].pop("profiles", None) or {}
    if not isinstance(own, dict) or not all(isinstance(tree, dict) for tree in own.values()):
        raise ConfigError(f"{duo}: profiles: expected a section of the task's own keys for each profile it names")
    for name in own:
        if name not in known:
            raise ConfigError(f"{duo}: profiles: unknown profile {name!r}{nearest(str(name), known)}")
    for section, key in (("coverage", "source"), ("", "gate")):
        above, below = (sources[file].get(section) if section else sources[file] for file in (duo, profile_file))
        if isinstance(above, dict) and isinstance(below, dict) and key in above:
            if key == "gate" and not _whole(above[key]):  # settings alone are about the profile's rules
                above[key] = {**(parsed(below.get(key)) or {}), **parsed(above[key])}
            below.pop(key, None)
    path = profile_file.with_suffix("").as_posix()
    name = next((name for name in own if path == name or path.endswith(f"/{name}")), None)
    tree: dict[str, Any] = own.get(name, {})
    return tree


def _whole(gate: Any) -> bool:
    gate = parsed(gate)
    return not (isinstance(gate, dict) and gate and set(gate) <= set(SETTINGS))


def _another(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "model" in old and "model" in new and old["model"] != new["model"]


def _explain(problem: Any, sources: Mapping[Path, dict[str, Any]]) -> str:
    """One line for one of pydantic's findings: file, key, what is wrong, what was meant."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    where = next((str(file) for file, tree in reversed(list(sources.items())) if _has(tree, path)), "configuration")
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key {key}{nearest(path[-1], _fields(path[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: {key} is missing"
    if path[-1] == "api_key_env":
        return f"{where}: {key}: give the *name* of an environment variable, such as OPENAI_API_KEY"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {key}: {message} (got {problem['input']!r})"


def _has(tree: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(tree, dict):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _fields(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Project
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
