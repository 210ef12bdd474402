"""Access to a study of another process, through the study's directory."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.follower import JournalFollower, study_info
from daskhpo.cluster import jobs
from daskhpo.cluster.parsers import SlurmJob
from daskhpo.cluster.shell import CommandError
from daskhpo.core.arguments import check_text
from daskhpo.core.errors import StudyNotRunning
from daskhpo.core.printable import shell_word
from daskhpo.core.tracebacks import BriefInterrupt
from daskhpo.engine.lock import holder_of
from daskhpo.engine.requests import request_stop
from daskhpo.engine.session import read_manifest, study_records
from daskhpo.remote.submission import JobDirectory, submission_name
from daskhpo.results.progress import status_counts
from daskhpo.results.result import Result

logger = logging.getLogger("daskhpo")

LOCK_POLL_SECONDS = 2.0
MAX_SQUEUE_SECONDS = 30.0  # between two queries to slurmctld, which serves the whole site


@dataclass(frozen=True)
class RunStatus:
    """The process and the Slurm jobs that run a study; falsy if there are none.

    Attributes
    ----------
    holder : the process that holds the study's lock; None: no process runs it, for example between
        two jobs.
    jobs : submitted jobs that are not over, running ones first; empty if Slurm does not answer.
    """

    holder: dict[str, Any] | None
    jobs: tuple[SlurmJob, ...]

    def __bool__(self) -> bool:
        return self.holder is not None or bool(self.jobs)


def run_status(directory: Path) -> RunStatus:
    """Return the process and the jobs that run the study in a directory, or will."""
    holder = holder_of(directory, jobs.is_over)
    number = JobDirectory(directory).number()
    try:
        listed = [] if number is None else jobs.jobs_of(number)
        return RunStatus(holder, tuple(sorted(listed, key=lambda job: job.is_pending)))
    except CommandError as error:
        logger.info("cannot query Slurm about job %s: %s", number, error)
        return RunStatus(holder, ())


class AttachedStudy:
    """A study that runs in another process, on this or another machine, or in a job.

    All communication goes through the study's directory, which both machines must share. No network
    connection between them is needed.

    Parameters
    ----------
    directory : directory of the study.
    callbacks : callbacks that follow the study's journal during :meth:`wait`.

    Attributes
    ----------
    job : Slurm's number of the last submission; None: the study was not submitted.
    """

    def __init__(self, directory: Path, callbacks: Sequence[Callback] = ()) -> None:
        self.directory, self._callbacks = directory, callbacks
        self._manifest = read_manifest(directory)
        self._folder = JobDirectory(directory)

    def __repr__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"AttachedStudy({str(self.directory)!r}{job})"

    @property
    def job(self) -> str | None:
        return self._folder.number()

    def wait(self) -> Result:
        """Follow the study to its end, through all jobs of a chain.

        Ctrl-C leaves the study running.
        """
        with BriefInterrupt():
            self._await_session()
            follower = JournalFollower(study_info(self.directory), self._callbacks)
            try:
                self._await_end()
            except BaseException:
                follower.detach()
                raise
            follower.finish()
            return Result(study_records(self.directory), self._manifest.objective, self.directory)

    def stop(self, reason: str = "stopped by the user") -> None:
        """Ask the study to stop: running trials are preempted at their next report.

        Pending jobs of the study are cancelled.

        Raises
        ------
        StudyNotRunning : no process runs the study, and no job will.
        """
        reason = check_text("reason", reason)
        now = run_status(self.directory)
        if not now:
            raise not_running_error(self.directory)
        if now.holder is not None:
            request_stop(self.directory, now.holder["token"], reason)
        if (number := self.job) is not None:
            request_stop(self.directory, submission_name(number), reason)
            if any(job.is_pending for job in now.jobs):
                jobs.cancel([number], waiting_only=True)

    def status(self) -> dict[str, int]:
        """Return the number of trials in each status."""
        return status_counts(study_records(self.directory), self._manifest.objective)

    def _await_session(self) -> None:
        """Wait until a process runs the study, or no job is left that could."""
        shown, pause = "", LOCK_POLL_SECONDS
        while holder_of(self.directory, jobs.is_over) is None:
            now = run_status(self.directory)
            if not now:
                return
            if now.jobs and (state := now.jobs[0].description) != shown:
                logger.warning("%s: %s", self.directory, state)
                shown = state
            time.sleep(pause)
            pause = min(2 * pause, MAX_SQUEUE_SECONDS)

    def _await_end(self) -> None:
        """Wait until no process runs the study, and no job will."""
        pause = LOCK_POLL_SECONDS
        while run_status(self.directory):
            while holder_of(self.directory, jobs.is_over) is not None:
                time.sleep(LOCK_POLL_SECONDS)
                pause = LOCK_POLL_SECONDS
            time.sleep(pause)
            pause = min(2 * pause, MAX_SQUEUE_SECONDS)


def attach(directory: Path, callbacks: Sequence[Callback] = ()) -> AttachedStudy:
    """Return a study that runs now, or that a job is going to run.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    StudyNotRunning : no process runs the study, and no job will.
    """
    attached = AttachedStudy(directory, callbacks)
    if not run_status(directory):
        raise not_running_error(directory)
    return attached


def not_running_error(directory: Path) -> StudyNotRunning:
    """Return the error for a study that no process runs."""
    path = shell_word(directory)
    return StudyNotRunning(
        f"{directory} is not running: `daskhpo status {path}` shows its state, and "
        f"`daskhpo resume {path}` continues it"
    )
