"""Ports and servers that tests and benchmarks share."""

import socket
import sys
import threading
from pathlib import Path

import pytest

from tools.servers import PORTS, answers, free_ports, started


def test_ports_are_free_different_and_not_those_that_the_system_hands_out() -> None:
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as taken:
        found = free_ports(200)
        assert len(set(found)) == 200
        assert taken.getsockname()[1] not in found
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert set(found) <= set(PORTS)
    assert max(PORTS) < lowest


def test_what_speaks_no_http_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        assert not answers(f"http://127.0.0.1:{server.getsockname()[1]}/")


def test_a_server_that_ends_before_it_answers_is_told_with_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such store')"]
    with (
        pytest.raises(RuntimeError, match="no such store"),
        started(command, tmp_path, {}, f"http://127.0.0.1:{free_ports(1)[0]}/"),
    ):
        pass


def _greet(server: socket.socket) -> None:
    client, _ = server.accept()
    with client:
        client.recv(1024)
        client.sendall(b"\0\0\x12\4\0\0\0\0\0\0\3\x7f\xff\xff\xff\r\n")  # what gRPC says first
