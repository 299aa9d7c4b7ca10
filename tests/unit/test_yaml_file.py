"""YAML that a person has written: what is wrong with it is one line, which says where."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.yaml_file import read_yaml

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)
)


@given(tree=trees)
def test_what_was_written_is_read(tree: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("yaml") / "a.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")

    assert read_yaml(file) == tree


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gate: 70\nlimits: {rounds: 1}\ngate: 90\n", "line 3: the key 'gate' stands twice"),
        ("limits:\n  rounds: 1\n  usd: 3\n  rounds: 2\n", "line 4: the key 'rounds' stands twice"),
        ("limits: {rounds: 1, rounds: 1}", "line 1: the key 'rounds' stands twice"),
        ("gate: 70\nlimits: {rounds: [", "line 2: while parsing a flow node, expected the node content"),
        ("gate: @home", "line 1: while scanning for the next token, found character '@'"),
        ("when: 2024-13-45", "month must be in 1..12"),
        ("gate: \x00", "special characters are not allowed"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert str(error.value).startswith(f"{file} cannot be read: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_key_elsewhere_or_over_a_merged_one_is_none_that_stands_twice(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n1: {x: 1}\n'1': {x: 2}\n")

    assert read_yaml(file) == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 2, "y": 1},
        "c": {"x": 3, "y": 1},
        1: {"x": 1},
        "1": {"x": 2},
    }


def test_a_file_that_there_is_not_or_that_is_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file or directory"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="cannot be read: 'utf-8' codec can't decode"):
        read_yaml(tmp_path / "a.yaml")
