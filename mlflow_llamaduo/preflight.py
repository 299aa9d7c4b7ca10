"""All that can be known to be wrong before anything starts, and before anything heavy is imported."""

from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.coverage import read_pairs, split
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.terms import BATCH_PROVIDERS, missing_key, presets, terms


def check(project: Project) -> Split:
    """All that can be known to be wrong before anything starts.

    Raises:
        ConfigError: a paid model has no key or no known price.
        DataError: the coverage rows are no pairs, or too few.
    """
    check_models(*project.service_llm.models)
    return collect(project)


def check_models(*models: ServiceModel) -> None:
    """That every service LLM is there, and has its key and its price.

    Raises:
        ConfigError: one line for each that has not.
    """
    if problems := missing(*models):
        raise ConfigError("\n".join(problems))


def missing(*models: ServiceModel) -> list[str]:
    """A line for each thing that keeps a service LLM from being asked."""
    problems: list[str | None] = []
    for llm in models:
        try:
            known = terms(llm)
        except ConfigError as error:
            problems.append(str(error))
            continue
        problems += [_retired(llm), missing_key(llm)]
        if llm.batch and known.provider not in BATCH_PROVIDERS:
            providers = " and ".join(BATCH_PROVIDERS)
            problems.append(f"{known.name}: batch is for {providers}; set batch to false for this model")
    return list(dict.fromkeys(problem for problem in problems if problem))


def collect(project: Project) -> Split:
    """The coverage pairs of a project, split."""
    pairs = read_pairs(project.coverage_path, category=project.category)
    return split(pairs, test_rows=project.coverage.test_rows, dev_rows=project.coverage.dev_rows)


def _retired(llm: ServiceModel) -> str | None:
    preset = presets().get(llm.model, {})
    if "retired" not in preset or llm.api_base:
        return None
    return f"{llm.model} was switched off by its provider on {preset['retired']}: take {preset['successor']}"
