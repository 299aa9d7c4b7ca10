"""A real MLflow server that can be away for a while: the same port and the same store before and after.

It can die at the worst moment, too: when it has done what it was asked, and has not said so.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.servers import answers, free_port


@dataclass
class MlflowServer:
    """Where it is, and where its store is."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of its own: none of MLflow's are taken from the test's."""

    @property
    def uri(self) -> str:
        """For MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        # Without its job runner, which starts processes of its own.
        environment = {**kept, "PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **self.environment}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            if answers(f"{self.uri}/health"):
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        """End it and all its workers at once, whatever they were doing."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


@contextmanager
def mlflow_server(folder: Path, **environment: str) -> Iterator[MlflowServer]:
    """A server with its store in `folder` and these variables, for the length of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    server = MlflowServer(folder, free_port(), environment=environment)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Wire:
    """Between a client and the server: bytes go to and fro, until the answer to a certain request comes, once.

    Args:
        server: whose port the bytes go to.
        request: bytes that the request has, and no other.
        cut: called when its answer begins; the client's connection is closed, and it never hears the answer.
    """

    def __init__(self, server: MlflowServer, request: bytes, cut: Callable[[], None]) -> None:
        self._server, self._request, self._cut = server, request, cut
        self._lost = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def uri(self) -> str:
        """For MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    @property
    def lost(self) -> bool:
        """Whether the answer is lost, and `cut` has returned."""
        return self._lost.is_set()

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._server.port))
        except OSError:
            client.close()
            return
        asked = threading.Event()  # on this connection: others have answers of their own
        seen, answered = partial(self._seen, asked), partial(self._answered, asked)
        threading.Thread(target=self._pass, args=(client, server, seen), daemon=True).start()
        self._pass(server, client, answered)

    def _pass(self, source: socket.socket, target: socket.socket, look: Callable[[bytes], bool]) -> None:
        """Bytes from one to the other until either is closed, or `look` says that these are not to go on."""
        with suppress(OSError):
            while (data := source.recv(65536)) and look(data):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _seen(self, asked: threading.Event, data: bytes) -> bool:
        if self._request in data:
            asked.set()
        return True

    def _answered(self, asked: threading.Event, _: bytes) -> bool:
        if not asked.is_set() or self._lost.is_set():
            return True
        self._cut()
        self._lost.set()
        return False
