"""All that can be known to be wrong before anything starts, and before anything heavy is imported."""

from mlflow_llamaduo.config import Project
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.coverage import read_pairs, split
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.terms import missing_key, price


def check(project: Project) -> Split:
    """All that can be known to be wrong before anything starts.

    Raises:
        ConfigError: a paid model has no key or no known price.
        DataError: the coverage rows are no pairs, or too few.
    """
    check_models(project)
    return collect(project)


def check_models(project: Project) -> None:
    """That every service LLM has its key and its price.

    Raises:
        ConfigError: one line for each that has not.
    """
    if problems := missing(project):
        raise ConfigError("\n".join(problems))
    for model in _models(project):
        price(model, project.service_llm)


def missing(project: Project) -> list[str]:
    """A line for each service LLM whose key is not set."""
    found = (missing_key(model, project.service_llm) for model in _models(project))
    return [problem for problem in found if problem]


def _models(project: Project) -> list[str]:
    return list(dict.fromkeys((project.service_llm.judge, project.service_llm.generator)))


def collect(project: Project) -> Split:
    """The coverage pairs of a project, split."""
    pairs = read_pairs(project.coverage_path, category=project.category)
    return split(pairs, test_rows=project.coverage.test_rows, dev_rows=project.coverage.dev_rows)
