"""Program of the controller job: Dask's scheduler and a study's coordinator.

The job's script runs ``python -m daskhpo.cli.submitted_job PATH``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daskhpo.callbacks import ConsoleProgress
from daskhpo.callbacks.base import Callback
from daskhpo.checkpoints import open_store
from daskhpo.cluster import jobs
from daskhpo.cluster.shell import CommandError
from daskhpo.cluster.walltime import StepTimer, find_job_end
from daskhpo.core.events import Ended, Launched, Record, Reported
from daskhpo.engine.lock import STALE_SECONDS, holder_of
from daskhpo.engine.options import RunOptions
from daskhpo.engine.requests import StopRequestWatcher, requested_stop
from daskhpo.engine.session import has_work, study_records
from daskhpo.executors.dask.handle import StudyHandle, start
from daskhpo.remote.allocation import allocation_cluster
from daskhpo.remote.chain import (
    Crashed,
    Finished,
    JobOutcome,
    WalltimeReached,
    should_continue,
    stop_margin,
)
from daskhpo.remote.script import worker_job_name
from daskhpo.remote.submission import (
    ControllerAddress,
    JobDirectory,
    Submission,
    WorkerJobs,
    WorkerSteps,
    submission_name,
)
from daskhpo.results.progress import StudyProgress
from daskhpo.study.study import load_source

logger = logging.getLogger("daskhpo")

DEADLINE_POLL_SECONDS = 1.0
WALLTIME_REACHED = "its Slurm job was about to end"


def main(argv: list[str]) -> int:
    """Run a submitted study until it or this job ends; return the exit status."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    directory = Path(argv[0])
    own_job = jobs.own_submission() or "none"
    submission = JobDirectory(directory).submission()
    if submission is None:
        raise ValueError(f"{directory} was not submitted: there is no job/submission.json in it")
    deadline = JobDeadline(submission.job.walltime)
    end = run(directory, submission, own_job, deadline)
    if submission.job.n_jobs > 1 and not should_continue(end):
        _log_errors(jobs.cancel, [own_job], waiting_only=True)
    return int(isinstance(end, Crashed))


def run(directory: Path, submission: Submission, own_job: str, deadline: JobDeadline) -> JobOutcome:
    """Run one job of the chain: a session, if the study has work left."""
    if (reason := requested_stop(directory, submission_name(own_job))) is not None:
        logger.info("the study was stopped: %s", reason)
        return Finished()
    if not _await_turn(directory, deadline):
        return WalltimeReached()
    try:
        study = load_source(submission.source).at(directory)
        options = _with_time_left(submission, directory)
        if options is None or not has_work(
            directory, study.problem, options.limits, options.policy
        ):
            logger.info("the study has nothing left to do")
            return Finished()
    except Exception:
        logger.exception("the study cannot be started")
        return Crashed(reported=False)
    steps, n_before = StepTimes(), _n_reports(directory)
    try:
        with _cluster(submission, JobDirectory(directory), own_job) as cluster:
            _write_address(JobDirectory(directory), cluster)
            handle = start(
                problem=study.problem,
                directory=directory,
                store=open_store(directory),
                trainable=study.trainable,
                options=options,
                resume=True,
                source=submission.source,
                client=cluster,
                callbacks=[ConsoleProgress(), steps],
            )
            listener = StopRequestWatcher(directory, submission_name(own_job), handle.stop)
            with contextlib.closing(listener), deadline.watched(handle, steps.timer):
                result = handle.wait()
    except Exception:
        logger.exception("the session failed")
        return Crashed(reported=_n_reports(directory) > n_before)
    return WalltimeReached() if result.stop_reason == WALLTIME_REACHED else Finished()


class JobDeadline:
    """The end of this job: SIGTERM, or a walltime that is nearly over.

    Parameters
    ----------
    walltime : walltime of the job, seconds; used if Slurm does not report when the job ends.

    Attributes
    ----------
    reached : set by SIGTERM.
    """

    def __init__(self, walltime: float) -> None:
        self.walltime = walltime
        end = find_job_end(walltime)
        self._end = math.inf if end is None else time.monotonic() + end - time.time()
        self.reached = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self.reached.set())

    @contextlib.contextmanager
    def watched(self, handle: StudyHandle, steps: StepTimer) -> Iterator[None]:
        """Stop the study in time before the job ends, as long as the block runs."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(DEADLINE_POLL_SECONDS):
                left = self._end - time.monotonic()
                if left <= stop_margin(self.walltime, steps.longest) or self.reached.is_set():
                    handle.stop(WALLTIME_REACHED)
                    return

        thread = threading.Thread(target=watch, name="daskhpo-ending", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class StepTimes(Callback):
    """Callback that times the steps of all trials."""

    def __init__(self) -> None:
        self.timer = StepTimer(keep=100)
        self._last: dict[int, float] = {}

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        match record:
            case Launched(trial):
                self._last[trial] = record.seconds
            case Reported(trial):
                for step in record.steps:
                    self.timer.observe(step.seconds - self._last.get(trial, step.seconds))
                    self._last[trial] = step.seconds
            case Ended(trial):
                self._last.pop(trial, None)


def _await_turn(directory: Path, deadline: JobDeadline) -> bool:
    """Wait until no other process runs the study.

    False if this job ends before, or after ``2 * STALE_SECONDS``.
    """
    patience = time.monotonic() + 2 * STALE_SECONDS
    is_logged = False
    while (holder := holder_of(directory, jobs.is_over)) is not None:
        if not is_logged:
            logger.info("waiting for process %s on %s to end", holder["pid"], holder["host"])
            is_logged = True
        if deadline.reached.wait(DEADLINE_POLL_SECONDS) or time.monotonic() >= patience:
            return False
    return not deadline.reached.is_set()


def _with_time_left(submission: Submission, directory: Path) -> RunOptions | None:
    """Return the options with the rest of the time budget; None if it is spent."""
    options, budget = submission.options, submission.options.time_budget
    if budget is None:
        return options
    now = max((record.seconds for record in study_records(directory)), default=0.0)
    left = budget - (now - submission.since)
    return replace(options, time_budget=left) if left > 0 else None


def _n_reports(directory: Path) -> int:
    return sum(isinstance(record, Reported) for record in study_records(directory))


@contextlib.contextmanager
def _cluster(submission: Submission, job_directory: JobDirectory, own_job: str) -> Iterator[Any]:
    """Yield a cluster: the scheduler in this process, workers as submitted."""
    match submission.workers:
        case WorkerSteps() as steps:
            with allocation_cluster(steps, job_directory, submission.job.queue) as cluster:
                yield cluster
        case WorkerJobs(worker_options):
            from daskhpo.cluster.slurm import slurm_cluster

            name = worker_job_name(job_directory.study.name, own_job)
            _log_errors(jobs.cancel_named, name)  # left by a killed job: they have no scheduler
            folders = {
                "log_directory": str(job_directory.path),
                "shared_temp_directory": str(job_directory.path),
            }
            with slurm_cluster(**folders | worker_options | {"job_name": name}) as cluster:
                yield cluster


def _write_address(job_directory: JobDirectory, cluster: Any) -> None:
    port = urlsplit(cluster.dashboard_link).port
    assert port is not None, cluster.dashboard_link
    job_directory.write_address(
        ControllerAddress(jobs.own_number() or "none", socket.gethostname(), port)
    )


def _log_errors(command: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a Slurm command; if it fails, log the error and return None.

    Slurm may be unavailable for a while.
    """
    try:
        return command(*args, **options)
    except CommandError as error:
        logger.warning("%s", error)
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
