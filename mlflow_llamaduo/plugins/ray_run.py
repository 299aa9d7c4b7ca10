"""A job that belongs to an MLflow run: MLflow waits for it, asks how it is, and cancels it."""

import click
from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.exceptions import ExecutionException
from mlflow.projects.submitted_run import SubmittedRun
from ray.job_submission import JobStatus, JobSubmissionClient

from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.plugins import ray_jobs

STATUS = "llamaduo.ray.status"
"""A tag of the run: how the job ended."""
ENDS = {JobStatus.SUCCEEDED: "FINISHED", JobStatus.STOPPED: "KILLED", JobStatus.FAILED: "FAILED"}
STOPPING = {
    # SIGINT is Ctrl-C to the job: it ends its MLflow run as KILLED itself. It gets this long for it, not 3 s.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "20",
}
"""Environment variables of the job, for Ray's supervisor of it."""


class RayJob(SubmittedRun):
    """MLflow's handle of one job."""

    def __init__(self, run_id: str, job: str, client: JobSubmissionClient, tracking: MlflowClient) -> None:
        self._run_id = run_id
        self._job = job
        self._client = client
        self._tracking = tracking
        self._ended: JobStatus | None = None

    @property
    def run_id(self) -> str:
        """The MLflow run's."""
        return self._run_id

    def wait(self) -> bool:
        """Show the job's log until it ends, and end the run with it; whether it succeeded.

        Raises:
            ExecutionException: the cluster is out of reach, or does not know the job.
        """
        if self._ended is None:
            try:
                self._end(ray_jobs.follow(self._client, self._job, lambda text: click.echo(text, nl=False)))
            except StageError as error:
                raise ExecutionException(f'{error} (-b ray -c \'{{"attach": "{self._run_id}"}}\')') from error
        return self._ended is JobStatus.SUCCEEDED

    def get_status(self) -> str:
        """MLflow's word for the state of the job: RUNNING, FINISHED, FAILED, KILLED, SCHEDULED."""
        status = self._ended or self._client.get_job_status(self._job)
        return ENDS.get(status, "SCHEDULED" if status is JobStatus.PENDING else "RUNNING")

    def cancel(self) -> None:
        """Stop the job and wait until it has ended; the run ends as KILLED.

        Raises:
            ExecutionException: it cannot be stopped from here.
        """
        if self._ended is None:
            say(f"stopping job {self._job}; it has {STOPPING['RAY_JOB_STOP_WAIT_TIME_S']} s to end in order")
            try:
                self._end(ray_jobs.stop(self._client, self._job))
            except StageError as error:
                raise ExecutionException(str(error)) from error

    def _end(self, status: JobStatus) -> None:
        """End the run as the job ended, unless the job has ended it itself: it knows better."""
        self._ended = status
        self._tracking.set_tag(self._run_id, STATUS, status.value)
        run = self._tracking.get_run(self._run_id)
        if not RunStatus.is_terminated(RunStatus.from_string(run.info.status)):
            self._tracking.set_terminated(self._run_id, ENDS[status])
        say(f"job {self._job}: {status.value}")


def say(line: str) -> None:
    """One line to the person at the terminal; standard output is the job's."""
    click.echo(f"llamaduo: {line}", err=True)
