"""Where a task's prompts come from; the registry is in tests/integration/test_prompt_registry.py."""

from pathlib import Path

import pytest

from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.judging import prompt as judging
from mlflow_llamaduo.prompts import task_prompts
from mlflow_llamaduo.synthesis import prompt as synthesis
from tests.unit.builders import project


def test_a_project_without_files_has_the_general_prompts_with_its_own_task(tmp_path: Path) -> None:
    found = task_prompts(project(folder=tmp_path, category="closed_qa"))

    assert (found["judge"].text, found["synthesize"].text) == (judging.SYSTEM, synthesis.SYSTEM)
    assert {prompt.task for prompt in found.values()} == {"closed_qa"}
    assert task_prompts(project(folder=tmp_path))["judge"].task == "test"


def test_a_file_of_the_project_is_its_prompt(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "judge.md").write_text("\nGrade it. {braces} stay.\n\n")
    (tmp_path / "mine.md").write_text("Write more.")
    found = task_prompts(project(folder=tmp_path, synthesis={"prompt": "mine.md"}))

    assert found["judge"].text == "Grade it. {braces} stay."
    assert found["judge"].source == str(tmp_path / "prompts" / "judge.md")
    assert found["synthesize"].text == "Write more."


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "judging.prompt: no prompt can be read"), (b" \n", "empty"), (b"\xff\xfe", "no prompt")],
)
def test_a_prompt_that_is_named_must_be_there(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "mine.md").write_bytes(content)

    with pytest.raises(ConfigError, match=told):
        task_prompts(project(folder=tmp_path, judging={"prompt": "mine.md"}))
