"""Every error that mlflow-llamaduo raises on purpose.

    LlamaDuoError
    ├── ConfigError (ValueError)      the configuration is wrong           exit code 2
    ├── DataError (ValueError)        the data is wrong                    exit code 2
    ├── StageError (RuntimeError)     a stage failed, with its cause       exit code 1
    │   └── BaseModelError            the base model could not be had      exit code 1
    └── BudgetError (RuntimeError)    the next call would pass the budget  exit code 1; a run ends with `budget`

A message says what is wrong, where, and what to do. Anything else that is raised is a bug and keeps its
traceback. One bad record is no error at all: it is data (`Unjudged`, `Rejected`), counted and reported.
"""

from typing import ClassVar


class LlamaDuoError(Exception):
    """Base of all deliberate errors.

    Catch it to tell what was foreseen from a bug.
    """

    exit_code: ClassVar[int] = 1
    """What `llamaduo` ends with."""


class ConfigError(LlamaDuoError, ValueError):
    """The configuration, or the command line, cannot be used; the message lists every problem found, one a line.

    Change what the lines name: a file and a key, an option, an environment variable. Nothing was started or spent.
    """

    exit_code = 2


class DataError(LlamaDuoError, ValueError):
    """Input rows cannot be used, or what was asked for is not there; the message lists file, line and reason.

    Mend or leave out the rows that are named, or give other files, versions or experiments.
    """

    exit_code = 2


class StageError(LlamaDuoError, RuntimeError):
    """A stage failed; raised `from` the library's own error.

    See to the cause that the message names, and give the same command again: what was finished is not done again.
    """


class BaseModelError(StageError):
    """The base model is in no place we looked; the message lists the places and why each failed.

    Make one of the places good: a folder, the model hub and its token, the cache. Then the same command again.
    """


class BudgetError(LlamaDuoError, RuntimeError):
    """The next call to the service LLM, or the next stage on a machine, would pass the budget; it was not begun.

    A higher budget and the same command: stored replies are not paid for again. `llamaduo run` does not fail with it
    but ends with the outcome `budget`, and 0.
    """
