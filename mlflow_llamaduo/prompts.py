"""The prompts of a task: files of its project, or versions in the MLflow Prompt Registry.

    projects/<task>/prompts/judge.md         what the judge is told
    projects/<task>/prompts/synthesize.md    what the generator is told

A file is the default, and the general prompt stands in for one that is not there. `judging.prompt` and
`synthesis.prompt` name another file, or `prompts:/<name>/<version>` or `prompts:/<name>@<alias>` of the registry.
What a run uses is registered as `llamaduo-<task>-judge` and `llamaduo-<task>-synthesize`, a new version where the
text is new, so that a round can say by which version it was asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.records import TaskPrompt
from mlflow_llamaduo.core.text import without_login
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.judging.prompt import GENERAL as JUDGE
from mlflow_llamaduo.places import check_mlflow
from mlflow_llamaduo.synthesis.prompt import GENERAL as SYNTHESIZE

URI = "prompts:/"

Prompts = Mapping[str, TaskPrompt]
"""`judge` and `synthesize`."""


def task_prompts(project: Project) -> Prompts:
    """The prompts of a project, read from where its configuration says.

    Raises:
        ConfigError: a file or a registered prompt that is named is not there, or is empty.
    """
    named = {"judge": (project.judging.prompt, JUDGE), "synthesize": (project.synthesis.prompt, SYNTHESIZE)}
    return {role: _prompt(project, role, name, general) for role, (name, general) in named.items()}


def registered(project: Project, prompts: Prompts, say: Callable[[str], object]) -> Prompts:
    """The same prompts, each with the URI of its version in the MLflow Prompt Registry as `source`.

    A version is made only where the newest one of that name has another text. A tracking server without a prompt
    registry does not stop a run that needs none: `say` is told, and the source stays the file.
    """
    from mlflow.exceptions import MlflowException

    try:
        return {role: _registered(f"{project.registered_model}-{role}", prompt) for role, prompt in prompts.items()}
    except MlflowException as error:
        say(f"the prompts are not in the MLflow Prompt Registry: {without_login(str(error))}")
        return prompts


def _prompt(project: Project, role: str, name: str, general: TaskPrompt) -> TaskPrompt:
    task = project.category or project.task
    if name.startswith(URI):
        return _checked(replace(_from_registry(name), task=task))
    file = project.folder / (name or f"prompts/{role}.md")
    if not name and not file.is_file():
        return replace(general, task=task)
    try:
        return _checked(TaskPrompt(task, file.read_text(encoding="utf-8").strip(), str(file)))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_key(role)}: no prompt can be read from {file}: {error}") from error


def _checked(prompt: TaskPrompt) -> TaskPrompt:
    if not prompt.text.strip():
        raise ConfigError(f"the prompt {prompt.source} is empty")
    return prompt


def _from_registry(uri: str) -> TaskPrompt:
    check_mlflow()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow.genai.load_prompt(uri)
    except MlflowException as error:
        # Not where it was looked for: an address may hold a password.
        raise ConfigError(f"no prompt {uri} in the Prompt Registry of MLFLOW_TRACKING_URI") from error
    if not isinstance(found.template, str):
        raise ConfigError(f"{uri} is a chat prompt: a text prompt is wanted, the system message")
    return TaskPrompt("", found.template.strip(), f"{URI}{found.name}/{found.version}")


def _registered(name: str, prompt: TaskPrompt) -> TaskPrompt:
    import mlflow

    if prompt.source.startswith(URI):
        return prompt
    newest = mlflow.genai.load_prompt(f"{URI}{name}@latest", allow_missing=True)
    if newest is None or newest.template != prompt.text:
        newest = mlflow.genai.register_prompt(name=name, template=prompt.text, commit_message=f"from {prompt.source}")
    return replace(prompt, source=f"{URI}{name}/{newest.version}")


def _key(role: str) -> str:
    return "judging.prompt" if role == "judge" else "synthesis.prompt"
