"""What a service can be asked for: tasks, the versions of their registered models, and the aliases on them.

closed_qa               the champion
closed_qa@challenger    whatever has the alias
closed_qa@7             version 7
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

CHAMPION = "champion"
NAME = re.compile(r"(?P<task>[^@]+)(?:@(?P<which>[^@]+))?")
NUMBER = re.compile(r"[1-9][0-9]{0,9}")
KEY = re.compile(r"(?P<name>[^/.]+)/(?P<number>[0-9]+)-(?P<made>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Pick:
    """One version of a registered model; `made` is when, in milliseconds since 1970.

    A number alone is not enough: a registry that was emptied counts from 1 again.
    """

    name: str
    number: int
    made: int

    @property
    def key(self) -> str:
        """All of it as a text that is a relative path too."""
        name = quote(self.name, safe="").replace(".", "%2E")  # no name is `..`
        return f"{name}/{self.number}-{self.made}"

    @staticmethod
    def of(key: str) -> "Pick":
        """The version that a key stands for.

        Raises:
            ValueError: it is no key.
        """
        found = KEY.fullmatch(key)
        if not found:
            raise ValueError(f"no version's key: {key[:80]!r}")
        return Pick(unquote(found["name"]), int(found["number"]), int(found["made"]))


@dataclass(frozen=True)
class Model:
    """A task's registered model: version numbers by alias, and when each version was made."""

    task: str
    name: str
    aliases: Mapping[str, int]
    versions: Mapping[int, int]

    def pick(self, which: str) -> Pick | None:
        """The version with this alias or number."""
        number = int(which) if NUMBER.fullmatch(which) else self.aliases.get(which)
        if number is None or number not in self.versions:
            return None
        return Pick(self.name, number, self.versions[number])

    def with_alias(self, alias: str, pick: Pick) -> "Model":
        """The same with an alias on another version, which may be one that the registry has no longer."""
        versions = {**self.versions, pick.number: pick.made}
        return replace(self, aliases={**self.aliases, alias: pick.number}, versions=versions)

    def row(self) -> dict[str, Any]:
        """It as JSON values."""
        versions = [[number, made] for number, made in sorted(self.versions.items())]
        return {"task": self.task, "name": self.name, "aliases": dict(self.aliases), "versions": versions}

    @staticmethod
    def of(row: Mapping[str, Any]) -> "Model":
        """Read it again.

        Raises:
            KeyError, TypeError, ValueError: it is not as `row` writes it.
        """
        aliases = {str(alias): int(number) for alias, number in row["aliases"].items()}
        return Model(str(row["task"]), str(row["name"]), aliases, {int(n): int(made) for n, made in row["versions"]})


@dataclass(frozen=True)
class Catalogue:
    """The models of a service, by task."""

    models: Mapping[str, Model]

    def find(self, asked: str) -> tuple[Model, Pick] | None:
        """What `asked` names."""
        found = NAME.fullmatch(asked)
        model = self.models.get(found["task"]) if found else None
        if not found or model is None:
            return None
        pick = model.pick(found["which"] or CHAMPION)
        return (model, pick) if pick else None

    def names(self, tasks: Collection[str] = ()) -> tuple[str, ...]:
        """All that may be asked for, each task's champion first, its newest version before older ones.

        Args:
            tasks: only of these; none is all.
        """
        names: list[str] = []
        for task, model in sorted(self.models.items()):
            if tasks and task not in tasks:
                continue
            names += [task] if model.pick(CHAMPION) else []
            names += [f"{task}@{alias}" for alias in sorted(model.aliases) if alias != CHAMPION and model.pick(alias)]
            names += [f"{task}@{number}" for number in sorted(model.versions, reverse=True)]
        return tuple(names)
