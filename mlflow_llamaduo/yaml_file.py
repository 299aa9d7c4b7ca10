"""YAML that somebody has written by hand."""

from pathlib import Path
from typing import Any

import yaml

from mlflow_llamaduo.errors import ConfigError


def read_yaml(file: Path) -> Any:
    """What a YAML file says.

    Of a key that stands twice PyYAML takes the second without a word, against YAML 1.2 (3.2.1.3: keys are unique):
    here it is an error, for the first may be the one that was meant.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has a key twice; one line, with the line of the file.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        why = line + ", ".join(filter(None, (error.context, error.problem)))
    except OSError as error:
        why = error.strerror or str(error)
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2024-13-45 is a ValueError, and so is no UTF-8
        why = " ".join(str(error).split())
    raise ConfigError(f"{file} cannot be read: {why}")


class _Loader(yaml.SafeLoader):
    """Looks at keys before `<<` brings those of others, which may be given anew."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    twice = f"the key {key.value!r} stands twice"
                    raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node
