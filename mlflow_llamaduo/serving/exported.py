"""A folder that `llamaduo export` has made, as a service: no project, no MLflow, no model hub, no network.

base/                       the base model, or with the adapter merged into it
<registered model>/         the version, as a shelf has it
serve.yaml                  a configuration of Ray Serve: whose it is, and the settings of serving
README.md  SHA256SUMS       the model card; the digests of all files
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from ray.serve import Application

from mlflow_llamaduo.checksums import check_sums
from mlflow_llamaduo.config import Serving
from mlflow_llamaduo.core.catalogue import CHAMPION
from mlflow_llamaduo.errors import ConfigError, DataError
from mlflow_llamaduo.inference.engine import ADAPTER_CONFIG, WEIGHTS, adapter_rank
from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.app import application
from mlflow_llamaduo.serving.run import check_place, keys_of, serve
from mlflow_llamaduo.serving.service import Service
from mlflow_llamaduo.serving.shelf import BASE, Shelf
from mlflow_llamaduo.yaml_file import read_yaml

SERVE = "serve.yaml"
SECTION = "serving."
HEAD = """\
# llamaduo serve --from .             (in this folder, or with its path instead of the dot)
# serve run serve.yaml                (the same by Ray Serve itself; `serve deploy` wants the whole path as `folder`)
#
# Settings for one start: llamaduo serve --from . --port 9000 --set serving.gpus=0. What is changed in here Ray Serve
# takes as it is; llamaduo serve refuses it until the line of `sha256sum serve.yaml` stands in SHA256SUMS.
"""
ELSEWHERE = {"keys", "host", "port", "canary", "shadow", "fallback", "trace_share", "refresh_seconds"}
"""Settings of serving that an exported folder has no use for, or that stand in `http_options`."""


class ExportArgs(BaseModel):
    """`args` of the application in serve.yaml."""

    model_config = ConfigDict(extra="forbid")
    folder: str
    task: str
    registered_model: str
    serving: dict[str, Any]


def serve_yaml(task: str, registered_model: str, serving: Serving) -> str:
    """The text of serve.yaml."""
    args = ExportArgs(
        folder=".",
        task=task,
        registered_model=registered_model,
        serving=serving.model_dump(mode="json", exclude=ELSEWHERE),
    )
    tree = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": serving.host, "port": serving.port},
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        "applications": [
            {
                "name": "llamaduo",
                "import_path": f"{__name__}:app",
                "route_prefix": "/",
                "args": args.model_dump(),
            }
        ],
    }
    return HEAD + yaml.safe_dump(tree, sort_keys=False)


def app(args: ExportArgs) -> Application:
    """The application for `serve run` and `serve deploy`, whose settings are those that Ray Serve was given.

    Raises:
        ConfigError, DataError: as `service_of_folder`.
    """
    hush()
    folder = Path(args.folder).absolute()
    check_sums(folder, but=SERVE)
    return application(_service(folder, args, _settings(folder / SERVE, args.serving)))


def serve_folder(folder: Path, overrides: Mapping[str, Any], *, port: int | None, say: Callable[[str], None]) -> None:
    """Serve an exported folder; returns after SIGINT or SIGTERM.

    Args:
        folder: as `llamaduo export` makes it.
        overrides: settings of serving by dotted key, such as `serving.gpus`.
        port: in the place of the one in serve.yaml.
        say: told a line before every step that takes longer than a moment.

    Raises:
        ConfigError: the settings or the keys cannot be, the port is in use, or there are no keys and the host is no
            loopback.
        DataError: the folder is not whole.
    """
    hush()
    folder = folder.absolute()
    args, http = _read(folder / SERVE)
    others = sorted(key for key in overrides if not key.startswith(SECTION))
    if others:
        raise ConfigError(f"--from: {', '.join(others)}: of the settings only those of serving are the folder's")
    given = {key.removeprefix(SECTION): value for key, value in overrides.items()}
    serving = _settings(folder / SERVE, {**args.serving, **http, **given})
    port = port or serving.port
    check_place(serving, port)
    check_sums(folder, say)
    service = _service(folder, args, serving)
    say(f"{args.task}: {service.first.name} version {service.first.number}, from {folder}")
    serve(service, port=port, say=say)


def _read(file: Path) -> tuple[ExportArgs, dict[str, Any]]:
    """What serve.yaml says of the application, and host and port."""
    try:
        tree = read_yaml(file)
        (found,) = tree["applications"]
        http = {name: tree["http_options"][name] for name in ("host", "port")}
        return ExportArgs.model_validate(found["args"]), http
    except ConfigError as error:
        raise DataError(f"{error}: llamaduo export makes such a folder") from error
    except (ValueError, TypeError, LookupError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{file} cannot be read ({why}): llamaduo export makes such a folder") from error


def _settings(file: Path, given: Mapping[str, Any]) -> Serving:
    try:
        return Serving.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{file}: serving.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _service(folder: Path, args: ExportArgs, serving: Serving) -> Service:
    shelf = Shelf(str(folder), live=False)
    names = {args.task: args.registered_model}
    first = shelf.stored(names).models[args.task].pick(CHAMPION)
    if first is None or not (folder / BASE).is_dir():
        raise DataError(f"{folder} has no base, or no version to serve: export it again")
    adapter = shelf.folder(first) / "adapter"
    config = adapter / ADAPTER_CONFIG
    rank = adapter_rank(config.read_text()) if (adapter / WEIGHTS).is_file() else 16
    return Service(names, shelf, first, serving, keys_of(serving), rank)
