"""One line for whoever asked MLflow, whatever went wrong below."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from mlflow_llamaduo.core.text import without_login
from mlflow_llamaduo.errors import ConfigError, DataError, LlamaDuoError


class DeploymentError(MlflowException, click.ClickException):
    """What MLflow's interface asks for. As click's it is one line at the terminal; MLflow would show a traceback.

    Its `error_code` is MLflow's: RESOURCE_DOES_NOT_EXIST, RESOURCE_ALREADY_EXISTS, INVALID_PARAMETER_VALUE (what was
    asked is wrong), TEMPORARILY_UNAVAILABLE (a cluster or an endpoint does not answer), INTERNAL_ERROR (it failed).
    """

    def __init__(self, message: str, error_code: int = INTERNAL_ERROR) -> None:
        MlflowException.__init__(self, message, error_code)


@contextmanager
def one_line() -> Iterator[None]:
    """Raise our own deliberate errors, and MLflow's, as a `DeploymentError`."""
    try:
        yield
    except DeploymentError:
        raise
    except (ConfigError, DataError) as error:
        raise DeploymentError("; ".join(str(error).splitlines()), INVALID_PARAMETER_VALUE) from error
    except LlamaDuoError as error:
        raise DeploymentError("; ".join(str(error).splitlines()), INTERNAL_ERROR) from error
    except MlflowException as error:
        raise DeploymentError(first_line(error)) from error


def first_line(error: Exception) -> str:
    """What an error says, as far as it is one line, without logins; its type where it says nothing."""
    lines = without_login(str(error)).strip().splitlines()
    return lines[0].strip()[:300] if lines else type(error).__name__
