"""Prompts in a real MLflow Prompt Registry, on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_llamaduo.core.records import TaskPrompt
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.prompts import registered, task_prompts
from tests.unit.builders import project

TEXT = (
    'Reply with {"contents": [{"instruction": "..."}]} and nothing else.\n\u00dcber {single} and {{double}} braces.'
)


@pytest.fixture(autouse=True)
def registry(tmp_path: Path) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield
    mlflow.set_tracking_uri(before)


def said(*lines: str) -> None:
    raise AssertionError(lines)


def test_a_prompt_is_registered_once_and_again_only_with_another_text() -> None:
    prompts = {"judge": TaskPrompt("test", TEXT, "judge.md"), "synthesize": TaskPrompt("test", "Write.", "s.md")}
    first = registered(project(), prompts, said)
    again = registered(project(), prompts, said)
    other = registered(project(), {**prompts, "judge": TaskPrompt("test", "New.", "judge.md")}, said)

    assert first["judge"].source == again["judge"].source == "prompts:/llamaduo-test-judge/1"
    assert other["judge"].source == "prompts:/llamaduo-test-judge/2"
    assert other["synthesize"].source == "prompts:/llamaduo-test-synthesize/1"
    assert first["judge"].text == TEXT


def test_a_version_of_the_registry_can_be_named_in_the_configuration() -> None:
    registered(project(), {"judge": TaskPrompt("test", TEXT, "judge.md")}, said)
    mlflow.genai.register_prompt(name="llamaduo-test-judge", template="Newer.")
    named = project(judging={"prompt": "prompts:/llamaduo-test-judge/1"})

    assert task_prompts(named)["judge"].text == TEXT.strip()
    assert registered(named, task_prompts(named), said)["judge"].source == "prompts:/llamaduo-test-judge/1"


def test_an_alias_is_told_as_the_version_that_it_stands_for() -> None:
    registered(project(), {"judge": TaskPrompt("test", TEXT, "judge.md")}, said)
    mlflow.genai.set_prompt_alias("llamaduo-test-judge", alias="good", version=1)
    found = task_prompts(project(judging={"prompt": "prompts:/llamaduo-test-judge@good"}))["judge"]

    assert (found.text, found.source) == (TEXT.strip(), "prompts:/llamaduo-test-judge/1")


def test_a_version_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="no prompt prompts:/nowhere/1"):
        task_prompts(project(synthesis={"prompt": "prompts:/nowhere/1"}))
