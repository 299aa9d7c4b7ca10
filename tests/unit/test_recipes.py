"""The shipped recipes: all of them load for all tasks, and the paper's have the paper's figures."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_llamaduo.config import FineTune, Project, load

PROJECTS = Path(__file__).parents[2] / "projects"
FOLDER = PROJECTS / "profiles" / "a100"
TASKS = ("classification", "closed_qa", "coding", "summarization")
ROWS = (1_000, 16_000, 32_000, 64_000, 256_000)
PAPER = ("gemma-2b", "gemma-7b", "llama3-8b", "llama3.2-1b", "llama3.2-3b", "mistral-7b")
TODAY = ("granite-4.1-8b", "qwen3-0.6b", "qwen3-4b-instruct-2507")

BASES = {
    "gemma-2b": "google/gemma-2b",
    "gemma-7b": "google/gemma-7b",
    "llama3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama3.2-3b": "meta-llama/Llama-3.2-3B",
    "mistral-7b": "mistralai/Mistral-7B-v0.3",
    "granite-4.1-8b": "ibm-granite/granite-4.1-8b",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-4b-instruct-2507": "Qwen/Qwen3-4B-Instruct-2507",
}


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(PROJECTS))


def recipe(name: str, task: str, rows: int = 1_000) -> FineTune:
    return load(task, f"a100/{name}").finetune.at(rows)


def tree(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return read


def test_there_are_nine_recipes_for_four_tasks_and_all_of_them_load() -> None:
    names = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))
    tasks = sorted(file.parent.name for file in PROJECTS.glob("*/duo.yaml"))
    assert names == sorted((*PAPER, *TODAY))
    assert tasks == list(TASKS)

    loaded = [load(task, f"a100/{name}") for name in names for task in tasks]

    assert len(loaded) == 36
    assert all(isinstance(project, Project) for project in loaded)
    assert {project.base_model for project in loaded} == set(BASES.values())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_of_the_paper_has_its_figures(name: str, task: str, rows: int) -> None:
    rank, alpha = {
        "gemma-2b": (8, 16),
        "gemma-7b": {1_000: (8, 16), 16_000: (8, 16), 32_000: (16, 32)}.get(rows, (32, 64)),
    }.get(name, (32, 64))
    llama = name.startswith("llama")
    wide = {"mistral-7b": ("classification", "closed_qa")}.get(name, ("closed_qa",) if llama else ())
    made = recipe(name, task, rows)

    assert (made.lora_rank, made.lora_alpha) == (rank, alpha)
    assert made.learning_rate == (2e-3 if llama and task == "coding" else 2e-4)
    assert made.epochs == (15 if name == "gemma-2b" and rows >= 64_000 else 10)
    assert made.batch_size == (8 if task in wide else 4)
    assert made.max_length == (2048 if name == "gemma-2b" else 1024)


@pytest.mark.parametrize("name", PAPER)
def test_what_all_recipes_of_the_paper_share(name: str) -> None:
    made = recipe(name, "closed_qa")
    assert (made.quantization, made.lora_dropout, made.gradient_accumulation) == ("nf4", 0.05, 2)
    assert (made.warmup, made.seed) == (0.1, 42)
    assert made.chat_template == "chatml"
    project = load("closed_qa", f"a100/{name}")
    assert (project.inference.temperature, project.inference.max_new_tokens) == (0.8, 1024)
    assert (project.inference.responses_per_prompt, project.judging.repeats) == (4, 10)


@pytest.mark.parametrize("name", TODAY)
@pytest.mark.parametrize("task", TASKS)
def test_recipes_of_today_use_the_models_own_template_and_are_one_for_all_tasks(name: str, task: str) -> None:
    made = recipe(name, task)
    assert made.chat_template == "own"
    assert made == recipe(name, "closed_qa")
    assert (made.epochs, made.batch_size, made.max_length, made.learning_rate) == (4, 8, 2048, 2e-4)


@pytest.mark.parametrize(("name", "base"), BASES.items())
def test_a_files_name_is_its_base(name: str, base: str) -> None:
    assert load("closed_qa", f"a100/{name}").base_model == base
    plain = base.lower().rpartition("/")[2].replace("meta-", "").replace("llama-3", "llama3").replace("-v0.3", "")
    assert name == plain


@pytest.mark.parametrize("name", BASES)
def test_a_recipe_opens_with_the_command_that_runs_it_and_tells_its_departures(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.splitlines()[0] == f"# mlflow run . -P task=closed_qa -P profile=a100/{name} -P yes=true"
    assert "Departures" in text.partition("base_model:")[0]


@pytest.mark.parametrize("name", BASES)
def test_training_is_on_a100_and_serving_on_l4(name: str) -> None:
    project = load("closed_qa", f"a100/{name}")
    # Ray finds a node by A100-40G or A100-80G only where somebody has said so: A100 is what it sees by itself
    assert (project.finetune.accelerator_type, project.inference.accelerator_type) == ("A100", "A100")
    assert (project.serving.accelerator_type, project.serving.gpus) == ("L4", 1)
    assert project.promotion == "review"


@pytest.mark.parametrize("name", BASES)
def test_what_has_nothing_to_do_with_the_base_is_the_same_in_every_file(name: str) -> None:
    """Each file says all of it, so that one file tells a recipe; this is what keeps them from drifting apart."""
    shared = ("promotion", "service_llm", "coverage", "judging", "synthesis", "limits", "serving")
    assert {key: tree(name)[key] for key in shared} == {key: tree("gemma-2b")[key] for key in shared}
    assert set(tree(name)) - {"tasks"} == {*shared, "base_model", "finetune", "inference"}


@pytest.mark.parametrize("name", BASES)
def test_a_recipe_says_every_figure_and_leaves_none_to_a_default(name: str) -> None:
    said = {"quantization", "chat_template", "lora_rank", "lora_alpha", "lora_dropout", "learning_rate", "epochs"}
    said |= {"patience", "batch_size", "gradient_accumulation", "warmup", "max_length", "too_long", "seed"}
    assert said <= set(tree(name)["finetune"])
