"""Configuration: `projects/<task>/duo.yaml`, a profile and overrides become one frozen tree.

    duo.yaml     what the task is: its coverage pairs, how they are split, the gate
    profile      what it runs on: base model, service LLM, recipe, limits
    overrides    what the user typed; they win

A key that is not known is an error, and all errors are told at once. Defaults stand here and nowhere else.
Secrets are never in the tree: it holds the *name* of an environment variable.
"""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mlflow_llamaduo.core.gate import FIGURES, GateRule
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.core.rounds import Limits
from mlflow_llamaduo.errors import ConfigError

Percent = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[int, Field(ge=1)]
Usd = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of the tree: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Coverage(Section):
    """Where the satisfactory pairs come from, and the split. Rows are counted in pairs."""

    path: Path = Path("coverage.jsonl")
    test_rows: Annotated[int, Field(ge=2)] = 24
    dev_rows: Positive = 12


class ServiceLLMs(Section):
    """The paid models (litellm names), or the offline stand-ins. Prices: dollars per million tokens."""

    generator: str = "offline/teacher"
    judge: str = "offline/judge"
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    api_base: str | None = None
    concurrency: Positive = 8
    max_tokens: Positive = 4096
    timeout_s: Annotated[float, Field(gt=0)] = 120
    retries: Annotated[int, Field(ge=0)] = 5
    input_usd_per_mtok: Usd | None = None
    output_usd_per_mtok: Usd | None = None


class FineTune(Section):
    """The QLoRA recipe (paper, appendix; figures in docs/reference). Lengths in tokens."""

    quantization: Literal["nf4", "none"] = "nf4"
    lora_rank: Positive = 32
    lora_alpha: Positive = 64
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    epochs: Positive = 10
    batch_size: Positive = 4
    gradient_accumulation: Positive = 2
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_length: Positive = 1024
    seed: int = 42
    workers: Positive = 1
    gpus_per_worker: Annotated[int, Field(ge=0)] = 1
    cpus_per_worker: Positive = 1
    usd_per_hour: Usd = 0.0

    def usd(self, seconds: float) -> float:
        """Dollars of all workers for so many seconds of training; `usd_per_hour` is one worker's price."""
        return self.workers * self.usd_per_hour * seconds / 3600


class Inference(Section):
    """How the local model answers the test prompts: K responses a prompt, sampled (paper, section 4.1)."""

    responses_per_prompt: Positive = 4
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive = 1024
    batch_size: Positive = 16
    seed: int = 42
    gpus: Annotated[int, Field(ge=0)] = 1


class Judging(Section):
    """M judgings a response."""

    repeats: Positive = 10


class Synthesis(Section):
    """How many pairs to ask for in a round, and how many in one call."""

    rows_per_round: Positive = 1000
    pairs_per_call: Positive = 10


class Stops(Section):
    """When to stop without having passed the gate."""

    rounds: Positive = 5
    plateau_rounds: Annotated[int, Field(ge=0)] = 3
    plateau_points: Percent = 1.0
    budget_usd: Usd = 50.0


class Serving(Section):
    """The Ray Serve endpoint; it listens on 127.0.0.1."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    max_new_tokens: Positive = 512
    gpus: Annotated[int, Field(ge=0)] = 1


class Costs(Section):
    """The break-even question: dollars, and millions of tokens a day (defaults: paper, Table 2, light)."""

    input_mtok_per_day: Usd = 10.0
    output_mtok_per_day: Usd = 1.0
    api_input_usd_per_mtok: Usd = 5.0
    api_output_usd_per_mtok: Usd = 15.0
    server_usd: Usd = 2539.0
    electricity_usd_per_month: Usd = 30.0
    servers: Positive = 1


def _gate_form(value: Any) -> Any:
    """A number asks for both means (the authors' gate); `figure=70,other=50` is the command line's form."""
    if isinstance(value, str):
        try:
            value = float(value) if "=" not in value else dict(part.split("=", 1) for part in value.split(","))
        except ValueError as error:
            raise ValueError(f"expected a number or figure=number,..., not {value!r}") from error
    if isinstance(value, dict) and any(isinstance(least, bool) for least in value.values()):
        raise ValueError("a least value is a number, not true or false")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"precision_mean": value, "similarity_mean": value}
    return value


def _known_figures(gate: dict[str, float]) -> dict[str, float]:
    for figure in gate:
        if figure not in FIGURES:
            raise ValueError(f"unknown figure {figure!r}{nearest(figure, FIGURES)}; known: {', '.join(FIGURES)}")
    return gate


Gate = Annotated[dict[str, Percent], Field(min_length=1), BeforeValidator(_gate_form), AfterValidator(_known_figures)]


class Project(Section):
    """Everything one alignment needs to know."""

    task: str
    folder: Path
    profile: str
    category: str = ""
    base_model: str
    promotion: Literal["auto", "review"] = "review"
    gate: Gate
    coverage: Coverage = Coverage()
    service_llm: ServiceLLMs = ServiceLLMs()
    finetune: FineTune = FineTune()
    inference: Inference = Inference()
    judging: Judging = Judging()
    synthesis: Synthesis = Synthesis()
    limits: Stops = Stops()
    serving: Serving = Serving()
    costs: Costs = Costs()

    @property
    def coverage_path(self) -> Path:
        """The coverage file, relative paths taken from the project's folder."""
        return self.folder / self.coverage.path

    @property
    def registered_model(self) -> str:
        """The name in the MLflow Model Registry."""
        return f"llamaduo-{self.task}"

    @property
    def rules(self) -> tuple[GateRule, ...]:
        """The gate as the rules that `decide` takes."""
        return tuple(GateRule(figure, least) for figure, least in sorted(self.gate.items()))

    @property
    def stops(self) -> Limits:
        """The limits as `stop_reason` takes them; the budget is kept by the service LLM's client."""
        return Limits(self.limits.rounds, self.limits.plateau_rounds, self.limits.plateau_points)

    @property
    def offline(self) -> bool:
        """True when both service LLMs are the offline stand-ins."""
        return all(m.startswith("offline/") for m in (self.service_llm.generator, self.service_llm.judge))

    @property
    def fingerprint(self) -> str:
        """Digest of all that shapes an alignment's rounds.

        Where it is served does not count, and neither do the limits: with more rounds or more money the same
        alignment goes on.
        """
        outside: dict[str, Any] = {
            "folder": True,
            "serving": True,
            "costs": True,
            "limits": True,
            "finetune": {"usd_per_hour"},
        }
        return digest(self.model_dump(mode="json", exclude=outside))


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
    sources = {
        root / task / "duo.yaml": _read(root / task / "duo.yaml"),
        profile_file: _read(profile_file),
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


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _profile_file(root: Path, profile: str) -> Path:
    if profile.endswith((".yaml", ".yml")):
        file = Path(profile)
        if not file.is_file():
            raise ConfigError(f"no profile file {file.absolute()}")
        return file
    folder = root / "profiles"
    known = sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.yaml"))
    if profile not in known:
        raise ConfigError(f"unknown profile {profile!r}{nearest(profile, known)}; known: {', '.join(known)}")
    return folder / f"{profile}.yaml"


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2024-13-45 is a ValueError
        raise ConfigError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from error
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
    """`above` over `below`, branch by branch; the gate is one value and is replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and key != "gate":
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


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
