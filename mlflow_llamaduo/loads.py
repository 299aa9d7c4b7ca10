"""Where the load of `llamaduo cost` comes from: the paper, a file, or the traces of a task that is in use."""

from pathlib import Path

from mlflow_llamaduo.core.cost import HEAVY, LIGHT, Workload
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.outlook import Load
from mlflow_llamaduo.places import check_mlflow
from mlflow_llamaduo.yaml_file import read_yaml

NAMED = {"light": Load(LIGHT, "the paper's, Table 2", 1), "heavy": Load(HEAVY, "the paper's, Table 2", 8)}
TRACES = "traces:"
KEYS = ("input_mtok_per_day", "output_mtok_per_day")


def load_of(said: str, days: int) -> Load:
    """The load by what was typed.

    Args:
        said: light, heavy, a YAML file, or traces:EXPERIMENT.
        days: of the traces, until now.

    Raises:
        ConfigError: it is none of these, or the file does not say how many tokens.
        DataError: the traces do not say what the load is.
    """
    if said in NAMED:
        return NAMED[said]
    if said.startswith(TRACES):
        check_mlflow()
        from mlflow_llamaduo.tracking.usage import used

        workload, traces = used(said.removeprefix(TRACES), days)
        return Load(workload, f"{traces} traces of the last {days} days")
    file = Path(said)
    try:
        tree = read_yaml(file)
        tokens = [float(tree[key]) for key in KEYS]
    except ConfigError as error:
        raise ConfigError(f"--workload {said}: light, heavy, traces:EXPERIMENT or a YAML file ({error})") from error
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"{file}: {' and '.join(KEYS)} are wanted, millions of tokens") from error
    if not all(0 <= count < float("inf") for count in tokens):
        raise ConfigError(f"{file}: {' and '.join(KEYS)} are numbers of at least 0")
    return Load(Workload(*tokens), str(file))
