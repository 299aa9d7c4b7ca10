"""All that can be known to be wrong before anything starts, and before anything heavy is imported."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlflow_llamaduo.base_models.resolve import cache_folder
from mlflow_llamaduo.cluster import check_address
from mlflow_llamaduo.config import Project, ServiceModel
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.redact import known_regions, redact, redact_text
from mlflow_llamaduo.coverage.gathered import Gathered, examples, sides, told
from mlflow_llamaduo.coverage.source import collect as collect_rows
from mlflow_llamaduo.coverage.sources import resolved, source_rows
from mlflow_llamaduo.coverage.split import split
from mlflow_llamaduo.errors import ConfigError, DataError
from mlflow_llamaduo.journal import HOME
from mlflow_llamaduo.outlook import outlook_of
from mlflow_llamaduo.places import check_cache, check_mlflow, check_storage, check_working_folder
from mlflow_llamaduo.progress import bar
from mlflow_llamaduo.prompts import task_prompts
from mlflow_llamaduo.service_llm.family import family
from mlflow_llamaduo.service_llm.offline.teachers import TEACHERS
from mlflow_llamaduo.service_llm.terms import BATCH_PROVIDERS, missing_key, presets, terms

TRACED = "traces"
"""The source of a pair that came from a trace."""

Redact = Callable[[Pair], tuple[Pair, dict[str, int]]]


def check(project: Project) -> Gathered:
    """All that can be known to be wrong before anything starts.

    Raises:
        ConfigError: a line for each thing that is wrong: a paid model has no key or no known price, what a run
            writes cannot be written, no cluster is where RAY_ADDRESS says.
        DataError: fewer rows are pairs than the split needs.
    """
    if problems := before_a_run(project):
        raise ConfigError("\n".join(problems))
    return collect(project)


def before_a_run(project: Project) -> list[str]:
    """A line for each thing that would stop a run before it starts; what takes seconds comes last."""
    problems = missing(*project.service_llm.models)
    for wanted in (
        check_judges,
        check_engine,
        check_costs,
        check_growth,
        check_prompts,
        check_base,
        check_server,
        check_ray,
        check_checkpoints,
    ):
        try:
            wanted(project)
        except ConfigError as error:
            problems += str(error).splitlines()
    return problems


def check_models(*models: ServiceModel) -> None:
    """That every service LLM is there, and has its key and its price.

    Raises:
        ConfigError: one line for each that has not.
    """
    if problems := missing(*models):
        raise ConfigError("\n".join(problems))


def check_costs(project: Project) -> None:
    """That everything in `costs` has a price.

    Raises:
        ConfigError: a name is not in the price book.
    """
    outlook_of(project.costs, 0.0)


def check_judges(project: Project) -> None:
    """That judges can be told apart, and that none judges its own family where the gate forbids it.

    Raises:
        ConfigError: two judges are one model, or the judge is of the generator's family under
            `gate.forbid_same_family`.
    """
    names = [terms(llm).name for llm in project.service_llm.judges]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"service_llm.other_judges: {', '.join(twice)} judges already; name another model")
    if project.gate.forbid_same_family and (warning := same_family(project)):
        raise ConfigError(f"gate.forbid_same_family: {warning}")


def check_engine(project: Project) -> None:
    """That vLLM is there, if answers are to come from it; on another's cluster its machines have it, or have not.

    Raises:
        ConfigError: it is not installed here.
    """
    if project.inference.engine != "vllm" or "RAY_ADDRESS" in os.environ:
        return
    from mlflow_llamaduo.inference.vllm_engine import missing as missing_vllm

    if problem := missing_vllm():
        raise ConfigError(problem)


def check_growth(project: Project) -> None:
    """That pairs can be written where there is a second round; see `check_grammar`."""
    if project.limits.rounds > 1:
        check_grammar(project)


def check_prompts(project: Project) -> None:
    """That the prompts are there, and have the places that are filled in."""
    task_prompts(project)


def check_base(project: Project) -> None:
    """That the base model can be kept, unless it is a folder or in the cache.

    Raises:
        ConfigError: LLAMADUO_CACHE cannot be written.
    """
    if not Path(project.base_model).is_dir():
        check_cache(cache_folder() / "base_models" / project.base_model.replace("/", "--"))


def check_server(_: Project) -> None:
    """That MLflow's server, if there is to be one, answers; see `places.check_mlflow`."""
    check_mlflow()


def check_ray(_: Project) -> None:
    """That something listens where RAY_ADDRESS says; see `cluster.check_address`."""
    check_address(os.environ)


def check_checkpoints(project: Project) -> None:
    """That checkpoints can be written to `finetune.storage`; see `places.check_storage`."""
    if project.finetune.storage:
        check_storage(project.finetune.storage)


def same_family(project: Project) -> str | None:
    """What is to be said of a judge of the generator's family; None where they are of two."""
    judge, generator = project.service_llm.judge, project.service_llm.generator
    if family(judge) != family(generator):
        return None
    return (
        f"judge {judge.model} and generator {generator.model} are of one family ({family(judge)}): judges favour "
        "students of their own family; take a judge of another one (--set service_llm.judge=...)"
    )


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


def collect(project: Project) -> Gathered:
    """The coverage pairs of a project: read, validated, redacted, split.

    What an earlier split in this working folder has made a test pair does not become a train pair.

    Raises:
        ConfigError: the working folder cannot be written.
        DataError: the source cannot be had, or fewer of its rows are pairs than the split needs.
    """
    check_working_folder()
    settings = project.coverage
    source = resolved(settings.source, project.folder)
    with bar(f"reading {source}", 0, "row") as progress:
        found = collect_rows(
            source_rows(source, trace_filter=settings.trace_filter, feedback=settings.feedback),
            source=source,
            categories=project.categories,
            max_characters=settings.max_characters,
            redact=redaction(project),
            done=progress.update,
        )
    try:
        parts = split(
            found.pairs,
            test_rows=settings.test_rows,
            dev_rows=settings.dev_rows,
            sides=sides(HOME / project.task),
        )
    except DataError as error:
        raise DataError("\n".join([str(error), told(found.report), *examples(found.rejected)])) from error
    rejected = found.rejected
    if redaction(project):  # a detail may quote the row
        rejected = tuple(replace(row, detail=redact_text(row.detail)[0]) for row in rejected)
    return Gathered(parts, found.report, rejected)


def redaction(project: Project, pairs: Iterable[Pair] = ()) -> Redact | None:
    """What takes personal values and secrets out of a pair, if the project wants it.

    Args:
        project: `coverage.redact` says when.
        pairs: `auto` wants it also where one of these came from a trace, by whatever file.

    Raises:
        ConfigError: a country of `coverage.phone_regions` that there is not.
    """
    settings = project.coverage
    if not settings.redacts and (settings.redact != "auto" or all(pair.source != TRACED for pair in pairs)):
        return None
    if unknown := set(settings.phone_regions).difference(known_regions()):
        raise ConfigError(
            f"coverage.phone_regions: no country {', '.join(sorted(unknown))}; give codes such as US, DE"
        )
    return partial(redact, kinds=settings.redact_kinds, regions=settings.phone_regions)


def check_grammar(project: Project) -> None:
    """That the offline teacher, if it is to write pairs, can write those of the task.

    Raises:
        ConfigError: it cannot.
    """
    task = project.category or project.task
    if project.service_llm.generator.model == "offline/teacher" and task not in TEACHERS:
        raise ConfigError(
            f"offline/teacher has no grammar for {task!r}, only for {', '.join(TEACHERS)}: name a service LLM that "
            "can write its pairs (--service-llm gpt-4o), or train on the coverage pairs alone (--rounds 1)"
        )


def _retired(llm: ServiceModel) -> str | None:
    preset = presets().get(llm.model, {})
    if "retired" not in preset or llm.api_base:
        return None
    return f"{llm.model} was switched off by its provider on {preset['retired']}: take {preset['successor']}"
