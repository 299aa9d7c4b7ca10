"""What all tests share: short property tests, and unit tests that cannot reach a network."""

import gc
import os
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import settings

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else whatever imports litellm first fetches a price list

settings.register_profile("short", max_examples=50, deadline=None)
settings.load_profile("short")


@pytest.fixture(autouse=True)
def offline_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that opens a connection fails, with or without a network."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a unit test tried to reach a network")

    if request.path.parent.name == "unit":
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module", autouse=True)
def own_mlflow() -> Iterator[None]:
    """Where MLflow is holds for one module of tests; its client writes it into the environment."""
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def pytest_sessionstart() -> None:
    gc.disable()  # litellm and MLflow make a million objects while they are imported, and none is garbage


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
