"""`mlflow run . -b ray -c '{"address": "http://127.0.0.1:8265"}'`: a project's entry point as a job of a Ray cluster.

    configuration checked -> folder packed -> MLflow run -> job submitted -> log streamed -> run ended as the job did

The job's id is made of the run's, and is a tag of it before the job is sent: whatever becomes of this process, the
job goes on, and `"attach": "<run id>"` finds it again.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import ExecutionException, MlflowException
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.utils import fetch_and_validate_project, get_or_create_run, load_project
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_BACKEND

import mlflow_llamaduo
from mlflow_llamaduo.config import nearest
from mlflow_llamaduo.core.text import without_login
from mlflow_llamaduo.errors import ConfigError, LlamaDuoError, StageError
from mlflow_llamaduo.files import HOME_VARIABLE
from mlflow_llamaduo.plugins import ray_jobs
from mlflow_llamaduo.plugins.backend_config import BackendConfig, address_of, parsed, tracking_for
from mlflow_llamaduo.plugins.project_files import pack
from mlflow_llamaduo.plugins.ray_run import STOPPING, RayJob, say

ADDRESS, SUBMISSION = "llamaduo.ray.address", "llamaduo.ray.submission_id"
DASHBOARD = "llamaduo.ray.dashboard"
"""Tags of the run."""


class RayBackend(AbstractBackend):
    """The backend that `-b ray` names."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, str],
        version: str | None,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> RayJob:
        """Submit an entry point, or find one that was submitted before; `mlflow run` also follows it to its end.

        Raises:
            ExecutionException: the configuration is wrong, the cluster is out of reach, or the job failed.
        """
        try:
            config = parsed(backend_config)
            tracking = MlflowClient(tracking_uri)
            if config.attach:
                job = _attached(config, config.attach, tracking)
            else:
                work = _fetched(project_uri, version, entry_point, params)
                project = _Project(project_uri, work, version, entry_point, params)
                job = _submitted(project, config, tracking, tracking_uri, experiment_id)
        except LlamaDuoError as error:
            raise ExecutionException(str(error)) from error
        # Waiting is not left to MLflow: 3.17 compares a status with numbers, and so would write FAILED over a run
        # that the job has ended, and over one that Ctrl-C has.
        waits = bool(backend_config.get("SYNCHRONOUS")) or _from_the_command_line()
        if waits if config.block is None else config.block:
            _see_through(job)
        return job


def _fetched(uri: str, version: str | None, entry_point: str, params: Mapping[str, str]) -> Path:
    """The project's folder; MLflow's command shows a traceback for all but its ExecutionException.

    Raises:
        ConfigError: it has no such entry point, or its MLproject cannot be read.
    """
    try:
        return Path(fetch_and_validate_project(uri, version, entry_point, params))
    except ExecutionException:
        raise
    except MlflowException as error:
        if "entry point" not in str(error):
            raise ConfigError(f"{uri}: {_first_line(error)}") from error
        file = Path(uri) / "MLproject"
        known = yaml.safe_load(file.read_text()).get("entry_points", {}) if file.is_file() else {}
        listed = f"; known: {', '.join(known)}" if known else ""
        raise ConfigError(f"{uri} has no entry point {entry_point!r}{nearest(entry_point, known)}{listed}") from error


class _Project:
    """What is to be run: a folder, and the command of one of its entry points."""

    def __init__(
        self, uri: str, folder: Path, version: str | None, entry_point: str, params: Mapping[str, str]
    ) -> None:
        self.uri, self.folder, self.version = uri, folder, version
        self.entry_point, self.params = entry_point, dict(params or {})

    @property
    def command(self) -> str:
        entry = load_project(str(self.folder)).get_entry_point(self.entry_point)
        return str(entry.compute_command(self.params, None))

    def new_run(self, experiment_id: str) -> str:
        run = get_or_create_run(
            None, self.uri, experiment_id, str(self.folder), self.version, self.entry_point, self.params
        )
        return str(run.info.run_id)


def _submitted(
    project: _Project, config: BackendConfig, tracking: MlflowClient, tracking_uri: str, experiment_id: str
) -> RayJob:
    client = ray_jobs.connect(address_of(config), config.headers)
    address = client.get_address()
    here = ray_jobs.on_this_machine(address, config.headers)
    environment = {
        **config.environment,
        **STOPPING,
        **_home(config, project, here=here),
        "MLFLOW_TRACKING_URI": tracking_for(tracking_uri, here=here),
        "MLFLOW_EXPERIMENT_ID": str(experiment_id),
    }
    command = project.command
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "project.zip"
        packed = pack(project.folder, archive, config.exclude, config.include)
        run_id = project.new_run(experiment_id)
        job = f"{config.submission_prefix}-{run_id}"
        _tag(tracking, run_id, address, job)
        if packed.told:
            say(packed.told)
        say(f"sending {project.folder} ({packed.size / 1024**2:.1f} MiB) to {address} as job {job}")
        try:
            client.submit_job(
                entrypoint=command,
                submission_id=job,
                runtime_env={
                    **config.runtime_env,
                    "working_dir": str(archive),
                    **_our_package(project.folder),
                    "env_vars": {**environment, "MLFLOW_RUN_ID": run_id},
                },
                metadata={"mlflow_run_id": run_id},
                entrypoint_num_cpus=config.entrypoint_num_cpus,
                entrypoint_num_gpus=config.entrypoint_num_gpus,
                entrypoint_memory=config.entrypoint_memory,
                entrypoint_resources=dict(config.entrypoint_resources) or None,
            )
        except (*ray_jobs.LOST, ValueError) as error:
            tracking.set_terminated(run_id, "FAILED")
            raise StageError(f"the cluster at {address} did not take the job: {_first_line(error)}") from error
    say(f"MLflow run {run_id}; its log: {_dashboard(address, job)}")
    return RayJob(run_id, job, client, tracking)


def _attached(config: BackendConfig, run_id: str, tracking: MlflowClient) -> RayJob:
    """A job that was submitted before, by the tags of its run."""
    try:
        tags = tracking.get_run(run_id).data.tags
    except MlflowException as error:
        raise ConfigError(f"attach: no run {run_id} at {without_login(mlflow.get_tracking_uri())}") from error
    if SUBMISSION not in tags:
        raise ConfigError(f"attach: run {run_id} was not submitted with -b ray: it has no tag {SUBMISSION}")
    client = ray_jobs.connect(config.address or tags[ADDRESS], config.headers)
    say(f"attached to job {tags[SUBMISSION]} of MLflow run {run_id}")
    return RayJob(run_id, tags[SUBMISSION], client, tracking)


def _home(config: BackendConfig, project: _Project, *, here: bool) -> dict[str, str]:
    """Where the job keeps what it has finished: its own folder is thrown away."""
    if config.working_folder:
        return {HOME_VARIABLE: config.working_folder}
    if here:
        kept = project.folder if Path(project.uri).is_dir() else Path.cwd()
        return {HOME_VARIABLE: str(kept.absolute() / ".llamaduo")}
    say("no working_folder: what the job has finished goes with it, and the same command begins anew")
    return {}


def _our_package(folder: Path) -> dict[str, list[str]]:
    """This package goes with the job, unless the project's folder holds it: driver and workers import one version."""
    if (folder / "mlflow_llamaduo").is_dir():
        return {}
    return {"py_modules": [str(Path(mlflow_llamaduo.__file__).parent)], "excludes": ["**/__pycache__"]}


def _tag(tracking: MlflowClient, run_id: str, address: str, job: str) -> None:
    tags = {ADDRESS: address, SUBMISSION: job, DASHBOARD: _dashboard(address, job), MLFLOW_PROJECT_BACKEND: "ray"}
    for key, value in tags.items():
        tracking.set_tag(run_id, key, value)


def _dashboard(address: str, job: str) -> str:
    return f"{address}/#/jobs/{job}"


def _from_the_command_line() -> bool:
    """MLflow's command does not wait for a plugin's runs; a person at the terminal does."""
    context, mlflows = click.get_current_context(silent=True), sys.modules.get("mlflow.cli")
    return context is not None and mlflows is not None and context.find_root().command is mlflows.cli


def _see_through(job: RayJob) -> None:
    try:
        if not job.wait():
            raise ExecutionException(f"Run (ID '{job.run_id}') failed: the job ended as {job.get_status()}")
    except KeyboardInterrupt:
        job.cancel()
        raise


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
