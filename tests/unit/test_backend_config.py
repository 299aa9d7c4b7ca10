"""What `mlflow run -b ray -c ...` takes, and what it refuses before anything is sent."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.errors import ConfigError, DataError
from mlflow_llamaduo.plugins import project_files
from mlflow_llamaduo.plugins.backend_config import BackendConfig, address_of, loopback, parsed, tracking_for
from mlflow_llamaduo.plugins.project_files import pack

MLFLOWS: dict[str, Any] = {
    "ENV_MANAGER": None,
    "SYNCHRONOUS": False,
    "DOCKER_ARGS": {},
    "STORAGE_DIR": None,
    "build_image": False,
}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"adress": "http://x:8265"}, "unknown key adress; did you mean 'address'?"),
        ({"entrypoint_num_gpu": 1}, "did you mean 'entrypoint_num_gpus'?"),
        ({"entrypoint_num_gpus": -1}, "entrypoint_num_gpus"),
        ({"env": ["OPENAI_API_KEY=sk-1"]}, "env.0"),
        ({"env": ["NOT_SET_ANYWHERE"]}, "env: the environment variable NOT_SET_ANYWHERE is not set"),
        ({"token_env": "NOT_SET_ANYWHERE"}, "token_env: the environment variable NOT_SET_ANYWHERE is not set"),
        ({"headers_env": {"X-Key": "NOT_SET_ANYWHERE"}}, "headers_env: the environment variable NOT_SET_ANYWHERE"),
        ({"address": "http://me:pw@host:8265"}, "headers_env"),
        ({"working_folder": "s3://bucket/work"}, "absolute path"),
        ({"working_folder": "work"}, "absolute path"),
        ({"runtime_env": {"working_dir": "."}}, "working_dir"),
        ({"runtime_env": {"env_vars": ["A"]}}, "runtime_env: env_vars: names and values are wanted"),
        ({"runtime_env": {"envvars": {"A": "b"}}}, "runtime_env: Ray knows no envvars; did you mean 'env_vars'?"),
        ({"runtime_env": {"_ray_commit": "x"}}, "Ray knows no _ray_commit"),
        ({"runtime_env": {"pip": 3}}, "runtime_env: runtime_env['pip'] must be of type"),
        ({"runtime_env": {"pip": ["a"], "conda": "b"}}, "cannot be specified at the same time"),
        ({"submission_prefix": "a/b"}, "submission_prefix"),
        ({"ENV_MANAGER": "virtualenv"}, "--env-manager virtualenv"),
        ({"DOCKER_ARGS": {"gpus": "all"}}, "--docker-args"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as told:
        parsed({**MLFLOWS, **config})
    (line,) = str(told.value).splitlines()
    assert words in line
    assert "pw@" not in line


def test_all_that_is_wrong_is_told_together() -> None:
    with pytest.raises(ConfigError) as told:
        parsed({"adress": "x", "blok": True, "ENV_MANAGER": "conda"})
    assert len(str(told.value).splitlines()) == 3


def test_secrets_are_named_and_their_values_are_the_jobs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-1")
    monkeypatch.setenv("A_TOKEN", "t-1")
    config = parsed({"env": ["A_KEY"], "token_env": "A_TOKEN", "runtime_env": {"env_vars": {"N": 1}}})
    assert config.environment == {"N": "1", "A_KEY": "sk-1"}
    assert config.headers == {"Authorization": "Bearer t-1"}
    assert "sk-1" not in repr(config)
    assert "t-1" not in repr(config)


def test_the_address_is_the_configurations_before_rays_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_of(BackendConfig()) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert address_of(BackendConfig()) == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    assert address_of(BackendConfig()) == "http://head:8265"
    assert address_of(BackendConfig(address="https://other/")) == "https://other"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://localhost", True),
        ("http://[::1]:8265", True),
        ("127.0.0.1:6379", True),
        ("http://head:8265", False),
        ("http://127.0.0.1.example.org", False),
    ],
)
def test_which_addresses_are_of_this_machine(address: str, local: bool) -> None:
    assert loopback(address) is local


def test_a_local_tracking_store_is_made_absolute_for_a_cluster_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_for("sqlite:///mlflow.db", here=True) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_for("sqlite:////data/m.db?x=1", here=True) == "sqlite:////data/m.db?x=1"
    assert tracking_for("mlruns", here=True) == f"file://{tmp_path}/mlruns"
    assert tracking_for("file:///data/mlruns", here=True) == "file:///data/mlruns"
    assert tracking_for("http://127.0.0.1:5000", here=True) == "http://127.0.0.1:5000"


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "mlruns", "file:///data", "http://localhost:5000"])
def test_what_a_cluster_elsewhere_cannot_reach_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot reach the tracking URI .*MLFLOW_TRACKING_URI=http"):
        tracking_for(uri, here=False)


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("uri", ["https://mlflow.example.org", "databricks", "databricks://profile"])
def test_a_server_is_reached_from_anywhere(uri: str, here: bool) -> None:
    assert tracking_for(uri, here=here) == uri


def project(folder: Path) -> Path:
    for name in ("MLproject", "data/rows.jsonl", ".git/config", ".venv/bin/python", "src/__pycache__/a.pyc", ".env"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for name in ("mlflow.db", "mlruns/1/a", ".llamaduo/replies.sqlite", "notebooks/big.bin", "src/a.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_environments_runs_and_secrets_are_not_sent(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    packed = pack(project(tmp_path / "project"), archive, ("notebooks", "*.md"))
    assert packed.size == archive.stat().st_size
    assert packed.secrets == (".env",)
    assert zipfile.ZipFile(archive).namelist() == ["MLproject", "data/rows.jsonl", "src/a.py"]


SECRET = (
    *(
        ".aws/credentials",
        ".git-credentials",
        ".kube/config",
        ".netrc",
        ".pypirc",
        ".ssh/id_rsa",
        ".docker/config.json",
    ),
    *("Cert.PEM", "deploy/id_ed25519.pub", "deploy/server.key", "prod.env", "secrets/token.txt", ".env.local"),
)
INNOCENT = ("MLproject", "data/keys.jsonl", "environment.yaml", "src/env.py", "src/secrets.py", "tokenizer.json")


def written(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_what_looks_like_a_secret_is_not_sent_and_is_named_in_a_line(tmp_path: Path) -> None:
    packed = pack(written(tmp_path / "project", *SECRET, *INNOCENT), tmp_path / "a.zip")
    assert sorted(zipfile.ZipFile(tmp_path / "a.zip").namelist()) == sorted(INNOCENT)
    assert len(packed.secrets) == len(SECRET)
    assert packed.told is not None
    assert packed.told.startswith("not sent, for they look like secrets: .aws/, .docker/, .env.local, ")
    assert "and 8 more; " in packed.told
    assert "\n" not in packed.told


def test_what_the_job_needs_of_them_is_sent_when_it_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "project", "MLproject", "certs/ca.pem", "certs/own.pem")
    packed = pack(folder, tmp_path / "a.zip", include=("certs/ca.pem",))
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["MLproject", "certs/ca.pem"]
    assert packed.secrets == ("certs/own.pem",)
    assert pack(folder, tmp_path / "a.zip", include=("*.pem",)).told is None


@pytest.mark.parametrize("mark", ["pyvenv.cfg", "conda-meta/history"])
def test_a_python_environment_is_not_sent_whatever_its_name(mark: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "project", "MLproject", f"tools/mine/{mark}", "tools/mine/bin/python", "tools/a.txt")
    pack(folder, tmp_path / "a.zip")
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["MLproject", "tools/a.txt"]


def test_equal_files_make_an_equal_archive(tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack(project(tmp_path / name), tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    (tmp_path / "two/MLproject").write_text("other")
    pack(tmp_path / "two", tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() != (tmp_path / "two.zip").read_bytes()


def test_what_is_too_large_is_told_with_its_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_files, "LIMIT", 1024**2)
    folder = project(tmp_path / "project")
    (folder / "weights.bin").write_bytes(os.urandom(2 * 1024**2))
    with pytest.raises(DataError, match=r"2 MiB packed, and Ray takes 1; .*weights.bin \(2 MiB\).*exclude"):
        pack(folder, tmp_path / "a.zip")


@given(st.dictionaries(st.text(min_size=1), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_any_configuration_is_taken_or_told_as_a_deliberate_error(given_: dict[str, Any]) -> None:
    try:
        parsed(given_)
    except ConfigError as error:
        assert str(error).startswith("-b ray -c: ")
