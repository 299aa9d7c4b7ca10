"""Every error that mlflow-llamaduo raises on purpose.

    LlamaDuoError
    ├── ConfigError (ValueError)      the configuration is wrong           exit code 2
    ├── DataError (ValueError)        the data is wrong                    exit code 2
    ├── StageError (RuntimeError)     a stage failed, with its cause       exit code 1
    │   └── BaseModelError            the base model could not be had
    └── BudgetError (RuntimeError)    the next call would pass the budget  ends the loop, outcome `budget`

A message says what is wrong, where, and what to do. Anything else that is raised is a bug and keeps its
traceback. One bad record is no error at all: it is data (`Unjudged`, `Rejected`), counted and reported.
"""


class LlamaDuoError(Exception):
    """Base of all deliberate errors."""


class ConfigError(LlamaDuoError, ValueError):
    """The configuration cannot be used; the message lists every problem found, one a line."""


class DataError(LlamaDuoError, ValueError):
    """Input rows cannot be used; the message lists file, line and reason of every one."""


class StageError(LlamaDuoError, RuntimeError):
    """A stage failed; raised `from` the library's own error."""


class BaseModelError(StageError):
    """The base model is in no place we looked; the message lists the places and why each failed."""


class BudgetError(LlamaDuoError, RuntimeError):
    """The next call to the service LLM would pass the budget; nothing was spent beyond it."""
