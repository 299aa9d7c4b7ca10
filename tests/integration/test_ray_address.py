"""RAY_ADDRESS is tried before Ray is: Ray itself takes two minutes to say that nobody answers."""

import socket
import time

import pytest

from mlflow_llamaduo.cluster import check_address, cluster
from mlflow_llamaduo.errors import ConfigError


def test_where_nobody_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
        before = time.monotonic()
        with pytest.raises(ConfigError, match=r"nobody listens there .*refused.*ray start --head"), cluster():
            pass
    assert time.monotonic() - before < 5
    with pytest.raises(ConfigError, match="nobody listens there"):
        check_address({"RAY_ADDRESS": "127.0.0.1:99999"})
    with pytest.raises(ConfigError, match="nobody listens there"):
        check_address({"RAY_ADDRESS": "nowhere.invalid:6379"})


def test_where_something_listens_ray_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert check_address({"RAY_ADDRESS": address}) == address
    assert check_address({}) == check_address({"RAY_ADDRESS": ""}) == "local"
    assert check_address({"RAY_ADDRESS": "auto"}) == "auto"
