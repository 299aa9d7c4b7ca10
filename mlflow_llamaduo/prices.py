"""The price book: what API models, servers and electricity cost, each with its date and source (prices.yaml)."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, ValidationError

from mlflow_llamaduo.config import Costs, ServiceModel, nearest
from mlflow_llamaduo.core.cost import (
    HOURS_A_MONTH,
    ApiPrice,
    LocalPrice,
    electricity_usd_per_month,
)
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.terms import terms
from mlflow_llamaduo.yaml_file import read_yaml


class Entry(BaseModel):
    """A price is worth what its date and source are."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    date: str
    source: str


class ApiEntry(Entry):
    """Dollars per million tokens."""

    input_usd_per_mtok: NonNegativeFloat
    output_usd_per_mtok: NonNegativeFloat


class ServerEntry(Entry):
    """A server: dollars once or by the hour, watts, and tokens of answers a second where somebody measured."""

    usd: NonNegativeFloat = 0.0
    usd_per_hour: NonNegativeFloat = 0.0
    watts: NonNegativeFloat = 0.0
    output_tokens_per_second: PositiveFloat | None = None


class GpuEntry(Entry):
    """One GPU, dollars an hour."""

    usd_per_hour: NonNegativeFloat


class Electricity(Entry):
    """Dollars per kilowatt-hour."""

    usd_per_kwh: NonNegativeFloat


class PriceBook(BaseModel):
    """Entries by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    api: dict[str, ApiEntry] = {}
    servers: dict[str, ServerEntry] = {}
    gpus: dict[str, GpuEntry] = {}
    electricity: Electricity

    def api_price(self, model: str) -> tuple[ApiPrice, str]:
        """What a service LLM costs, and since when and by whom that is known.

        Raises:
            ConfigError: nobody knows.
        """
        if entry := self.api.get(model):
            return ApiPrice(entry.input_usd_per_mtok, entry.output_usd_per_mtok), _told(entry)
        known = terms(ServiceModel(model=model))
        return ApiPrice(known.input_usd, known.output_usd), known.source

    def server(self, name: str) -> ServerEntry:
        """A server.

        Raises:
            ConfigError: it is not in the book.
        """
        if entry := self.servers.get(name):
            return entry
        raise ConfigError(
            f"no server {name!r} in the price book{nearest(name, self.servers)}: it has {', '.join(self.servers)}; "
            "add yours in a file of your own (--prices FILE, or costs.prices)"
        )

    def local_price(self, server: ServerEntry, *, finetuning_usd: float, servers: int) -> LocalPrice:
        """What servers cost, with the book's electricity."""
        power = electricity_usd_per_month(server.watts, self.electricity.usd_per_kwh)
        return LocalPrice(finetuning_usd, server.usd, power, servers, HOURS_A_MONTH * server.usd_per_hour)


def price_book(file: Path | None = None) -> PriceBook:
    """Ours, with the entries of a file before it.

    Raises:
        ConfigError: the file is none of a price book.
    """
    ours: dict[str, Any] = yaml.safe_load((files("mlflow_llamaduo") / "prices.yaml").read_text(encoding="utf-8"))
    theirs: dict[str, Any] = {}
    try:
        if file is not None:
            theirs = read_yaml(file) or {}
        if not isinstance(theirs, dict):
            raise ConfigError(f"{file}: a price book has the keys api, servers, gpus and electricity")
        merged = {**ours, **theirs}
        for part in ("api", "servers", "gpus"):
            merged[part] = {**ours[part], **(theirs.get(part) or {})}
        return PriceBook.model_validate(merged)
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{file}: {_first(error)}") from error


def book_of(costs: Costs) -> PriceBook:
    """The price book of a configuration.

    Raises:
        ConfigError: the file of `costs.prices` is none.
    """
    try:
        return price_book(Path(costs.prices) if costs.prices else None)
    except ConfigError as error:
        raise ConfigError(f"costs: {error}") from error


def _first(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "api, servers and gpus are entries by name"
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _told(entry: Entry) -> str:
    return f"{entry.date}, {entry.source}"
