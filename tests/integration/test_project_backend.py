"""`mlflow run -b ray` on a real cluster: submit, stream, the run's end, Ctrl-C, attach."""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException

from tests.integration.ray_head import TOKEN, Head, ray_head

MLPROJECT = """
name: trivial
entry_points:
  main:
    parameters:
      how: {type: string, default: well}
    command: "python job.py {how}"
"""
JOB = """
import os, signal, sys, time
import mlflow

print("home", os.environ["LLAMADUO_HOME"], "secret of", len(os.environ.get("A_SECRET", "")), flush=True)
print("data", open("data.jsonl").read().strip(), os.path.exists("mlflow.db"), flush=True)
how = sys.argv[1]
if how == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "package":
    import ray
    from mlflow_llamaduo.cluster import cluster
    def where():
        import mlflow_llamaduo
        return mlflow_llamaduo.__file__, os.environ["HF_HUB_OFFLINE"], os.environ["PYTHONWARNINGS"]
    with cluster():
        print("worker", *ray.get(ray.remote(num_cpus=0)(where).remote()), flush=True)
with mlflow.start_run() as run:
    mlflow.log_text("kept", "note.txt")
    try:
        for number in range(60 if how == "long" else 4 if how == "some" else 0):
            print("tick", number, flush=True)
            time.sleep(1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        mlflow.end_run("KILLED")
        sys.exit(130)
    if how == "says-failed":
        mlflow.end_run("FAILED")
print("done", flush=True)
sys.exit(3 if how == "badly" else 0)
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with (
        tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder,
        ray_head(Path(folder)) as head,
    ):
        yield head


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "MLproject").write_text(MLPROJECT)
    (folder / "job.py").write_text(JOB)
    (folder / ".gitignore").write_text("data.jsonl\n")
    (folder / "data.jsonl").write_text('{"row": 1}\n')
    return folder


@pytest.fixture
def here(head: Head, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """This process as a user's in the project's folder."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", head.environment["RAY_AUTH_TOKEN_PATH"])
    monkeypatch.chdir(project)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    yield MlflowClient()
    mlflow.set_tracking_uri(before)


def start(head: Head, project: Path, config: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """`mlflow run . -b ray`, as it is typed."""
    return subprocess.Popen(
        ["mlflow", "run", ".", "-b", "ray", "-c", config, *arguments],
        cwd=project,
        env={**head.environment, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def latest(client: MlflowClient) -> Run:
    return client.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)[0]


def job_of(head: Head, run: Run) -> dict[str, object]:
    answer = httpx.get(
        f"{head.api}/api/jobs/{run.data.tags['llamaduo.ray.submission_id']}",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    found: dict[str, object] = answer.raise_for_status().json()
    return found


def run_here(head: Head, how: str, *, synchronous: bool = True, **config: object) -> mlflow.projects.SubmittedRun:
    return mlflow.projects.run(
        ".",
        parameters={"how": how},
        experiment_id="0",  # not the one that another test of this process has chosen
        backend="ray",
        backend_config={"address": head.api, **config},
        synchronous=synchronous,
    )


def read_until(process: "subprocess.Popen[str]", word: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if word in line:
            return text
    raise AssertionError(f"no {word!r} in {text}{process.communicate()[1]}")


def test_the_command_streams_the_log_and_ends_the_run(head: Head, project: Path, here: MlflowClient) -> None:
    config = f'{{"address": "{head.api}", "env": ["A_SECRET"]}}'
    process = start(head, project, config, "-P", "how=some", A_SECRET="hunter-2", RAY_ADDRESS="127.0.0.1:1")
    shown = read_until(process, "tick 0")
    run = latest(here)
    assert run.info.status == "RUNNING", "the log is shown while the job runs"
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    out = shown + out
    assert [line for line in out.splitlines() if line.startswith("tick")] == [f"tick {n}" for n in range(4)]
    assert f"home {project}/.llamaduo secret of 8" in out
    assert 'data {"row": 1} False' in out, "git's ignored data is sent, the tracking store is not"
    assert "hunter-2" not in out + err
    run = here.get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["llamaduo.ray.address"] == head.api
    assert run.data.tags["llamaduo.ray.submission_id"] == f"llamaduo-{run.info.run_id}"
    assert run.data.tags["llamaduo.ray.dashboard"] == f"{head.api}/#/jobs/llamaduo-{run.info.run_id}"
    assert run.data.tags["mlflow.project.backend"] == "ray"
    assert [file.path for file in here.list_artifacts(run.info.run_id)] == ["note.txt"]
    assert job_of(head, run)["status"] == "SUCCEEDED"


def test_ctrl_c_stops_the_job(head: Head, project: Path, here: MlflowClient) -> None:
    process = start(head, project, f'{{"address": "{head.api}"}}', "-P", "how=long")
    read_until(process, "tick 1")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "Traceback" not in err
    run = latest(here)
    assert job_of(head, run)["status"] == "STOPPED"
    assert run.info.status == "KILLED"
    log = httpx.get(
        f"{head.api}/api/jobs/llamaduo-{run.info.run_id}/logs", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert "interrupted" in log.text, "the job was let to end in order"


def test_a_job_outlives_its_client_and_is_found_again(head: Head, project: Path, here: MlflowClient) -> None:
    process = start(head, project, f'{{"address": "{head.api}"}}', "-P", "how=some")
    read_until(process, "tick 0")
    process.kill()
    process.communicate()
    run_id = latest(here).info.run_id
    again = start(head, project, f'{{"attach": "{run_id}"}}')
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert re.findall(r"tick \d", out) == [f"tick {n}" for n in range(4)]
    assert here.get_run(run_id).info.status == "FINISHED"
    assert latest(here).info.run_id == run_id, "attaching makes no run"


@pytest.mark.parametrize(
    ("how", "job", "run"),
    [("badly", "FAILED", "FINISHED"), ("dies", "FAILED", "FAILED"), ("says-failed", "SUCCEEDED", "FAILED")],
)
def test_the_run_ends_as_the_job_did_unless_the_job_has_ended_it(
    how: str, job: str, run: str, head: Head, here: MlflowClient
) -> None:
    if job == "FAILED":
        with pytest.raises(ExecutionException, match="failed"):
            run_here(head, how)
    else:
        run_here(head, how, synchronous=False, block=True)
    assert job_of(head, latest(here))["status"] == job
    assert latest(here).info.status == run


def test_without_waiting_a_run_can_be_asked_and_cancelled(head: Head, here: MlflowClient) -> None:
    submitted = run_here(head, "long", synchronous=False, env=[], working_folder="/mnt/shared")
    assert submitted.get_status() in ("SCHEDULED", "RUNNING")
    deadline = time.monotonic() + 60
    while submitted.get_status() != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    submitted.cancel()
    assert submitted.get_status() == "KILLED"
    assert here.get_run(submitted.run_id).info.status == "KILLED"


def test_driver_and_workers_import_the_package_that_was_sent(
    head: Head, here: MlflowClient, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here(head, "package", runtime_env={"env_vars": {"PYTHONWARNINGS": "default"}})
    (told,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("worker")]
    _, file, offline, warnings = told.split()
    assert "py_modules_files" in file
    assert (offline, warnings) == ("1", "default"), "what the job was given stands"


def test_a_driver_beside_the_cluster_works_on_it(head: Head, tmp_path: Path) -> None:
    code = (
        "import os, ray\n"
        "from mlflow_llamaduo.cluster import cluster\n"
        "def where():\n"
        "    import mlflow_llamaduo\n"
        "    return mlflow_llamaduo.__file__, os.environ.get('HF_TOKEN'), os.environ['OMP_NUM_THREADS']\n"
        "with cluster():\n"
        "    print(ray.get_runtime_context().gcs_address)\n"
        "    print(*ray.get(ray.remote(num_cpus=1)(where).remote()))\n"
    )
    environment = {**head.environment, "RAY_ADDRESS": head.gcs, "HF_TOKEN": "hf-1", "OMP_NUM_THREADS": "7"}
    command = ["python", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "StageError" in done.stderr
    assert "wants RAY_AUTH_MODE=token" in done.stderr
    environment["RAY_AUTH_MODE"] = "token"
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    address, worker = done.stdout.splitlines()
    assert address.endswith(head.gcs.rpartition(":")[2])
    file, token, threads = worker.split()
    assert "py_modules_files" in file
    assert token == "hf-1"
    assert threads != "7", "the driver's threads are not the workers'"


def test_a_cluster_that_does_not_know_the_token_says_how_to_give_it(
    head: Head, here: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong" * 10)
    before = len(here.search_runs(["0"]))
    with pytest.raises(ExecutionException, match="set RAY_AUTH_TOKEN"):
        run_here(head, "well")
    assert len(here.search_runs(["0"])) == before, "nothing was begun"


def test_where_no_cluster_answers_nothing_is_begun(here: MlflowClient) -> None:
    before = len(here.search_runs(["0"]))
    with pytest.raises(ExecutionException, match=r"no Ray cluster answers at http://127.0.0.1:9.*ray start --head"):
        mlflow.projects.run(".", experiment_id="0", backend="ray", backend_config={"address": "http://127.0.0.1:9"})
    assert len(here.search_runs(["0"])) == before


def test_an_address_without_http_is_the_jobs_api_if_that_answers(head: Head, here: MlflowClient) -> None:
    submitted = run_here(head, "well", address=head.api.removeprefix("http://"))
    assert submitted.get_status() == "FINISHED"
    assert here.get_run(submitted.run_id).data.tags["llamaduo.ray.address"] == head.api


def test_an_address_without_http_where_nobody_listens_is_told_at_once(here: MlflowClient) -> None:
    before = time.monotonic()
    with pytest.raises(ExecutionException, match=r"no Ray cluster answers at 127.0.0.1:9 .*refused"):
        mlflow.projects.run(".", experiment_id="0", backend="ray", backend_config={"address": "127.0.0.1:9"})
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "Could not find mian among entry points ['main']"),
        ("databricks_spark_job: {}", " has no entry point 'mian'; did you mean 'main'?; known: main"),  # as ours has
    ],
)
def test_an_entry_point_that_is_not_there_is_one_line(
    key: str, words: str, here: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "MLproject").write_text(f"{MLPROJECT}\n{key}\n")
    with pytest.raises(ExecutionException) as told:
        mlflow.projects.run(str(tmp_path), "mian", experiment_id="0", backend="ray", backend_config={})
    assert words in str(told.value)


def test_only_a_run_of_this_backend_can_be_attached_to(head: Head, here: MlflowClient) -> None:
    other = here.create_run("0").info.run_id
    for run_id, words in ((other, "was not submitted with -b ray"), ("0" * 32, "no run 0000")):
        with pytest.raises(ExecutionException, match=words):
            mlflow.projects.run(".", experiment_id="0", backend="ray", backend_config={"attach": run_id})
    here.set_tag(other, "llamaduo.ray.submission_id", "llamaduo-gone")
    with pytest.raises(ExecutionException, match="does not know job llamaduo-gone"):
        mlflow.projects.run(
            ".", experiment_id="0", backend="ray", backend_config={"attach": other, "address": head.api}
        )
