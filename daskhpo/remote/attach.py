"""A study that another process runs, seen through its directory."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo.callbacks.base import Callback, JournalFollower, StudyInfo
from daskhpo.cluster import jobs
from daskhpo.cluster.jobs import SlurmJob
from daskhpo.cluster.shell import CommandFailed, CommandMissing
from daskhpo.core.errors import StudyNotRunning
from daskhpo.core.events import SessionStarted
from daskhpo.core.types import Limits
from daskhpo.engine.lock import holder_of
from daskhpo.engine.requests import request_stop
from daskhpo.engine.session import read_manifest, study_records
from daskhpo.remote.submission import JobDirectory, submission_name
from daskhpo.results.progress import status_counts
from daskhpo.results.result import Result

logger = logging.getLogger("daskhpo")

LOCK_POLL_SECONDS = 2.0
MAX_SQUEUE_SECONDS = 30.0  # most between two questions to Slurm's controller, which serves the site


@dataclass(frozen=True)
class RunStatus:
    """Who runs a study.

    Attributes
    ----------
    holder : the process that does now, as its lock says; None between two jobs, for example.
    jobs : submitted ones that are not over, those that run first; none if Slurm cannot be asked.
    """

    holder: dict[str, Any] | None
    jobs: tuple[SlurmJob, ...]

    def __bool__(self) -> bool:
        return self.holder is not None or bool(self.jobs)


def run_status(directory: Path) -> RunStatus:
    """Who runs the study in a directory, or is about to."""
    holder = holder_of(directory, jobs.is_over)
    number = JobDirectory(directory).number()
    try:
        listed = [] if number is None else jobs.jobs_of(number)
        return RunStatus(holder, tuple(sorted(listed, key=lambda job: job.is_pending)))
    except (CommandMissing, CommandFailed) as error:
        logger.info("Slurm cannot be asked about job %s: %s", number, error)
        return RunStatus(holder, ())


class AttachedStudy:
    """A study that runs elsewhere: in another process here, on another machine, in a batch job.

    All goes through the study's directory, which this machine and that one share; there need be
    no network between them.

    Parameters
    ----------
    directory : of the study.
    callbacks : they follow its journal while :meth:`wait` waits.

    Attributes
    ----------
    job : Slurm's number, if it was submitted; None if not.
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
        """Follow the study to its end, through all jobs of a chain. Ctrl-C leaves it running."""
        self._await_session()
        follower = JournalFollower(self._info(), self._callbacks)
        try:
            self._await_end()
        except BaseException:
            follower.detach()
            raise
        follower.finish()
        return Result(study_records(self.directory), self._manifest.objective, self.directory)

    def stop(self, reason: str = "stopped by the user") -> None:
        """Ask the study to end: running trials hand over at their next report.

        Jobs of it that have not begun are cancelled.

        Raises
        ------
        StudyNotRunning : there is nothing to be stopped.
        """
        now = run_status(self.directory)
        if not now:
            raise not_running_error(self.directory)
        if now.holder is not None:
            request_stop(self.directory, now.holder["token"], reason)
        if (number := self.job) is not None:
            request_stop(self.directory, submission_name(number), reason)
            if any(job.is_pending for job in now.jobs):
                jobs.cancel(number, waiting_only=True)

    def status(self) -> dict[str, int]:
        """How many trials stand where: status to number."""
        return status_counts(study_records(self.directory), self._manifest.objective)

    def _await_session(self) -> None:
        """Wait for the first process that runs it, or until no job will."""
        told, pause = "", LOCK_POLL_SECONDS
        while holder_of(self.directory, jobs.is_over) is None:
            now = run_status(self.directory)
            if not now:
                return
            if now.jobs and (state := now.jobs[0].description) != told:
                logger.warning("%s: %s", self.directory, state)
                told = state
            time.sleep(pause)
            pause = min(2 * pause, MAX_SQUEUE_SECONDS)

    def _await_end(self) -> None:
        """Wait until no process runs it, and no job is going to."""
        pause = LOCK_POLL_SECONDS
        while run_status(self.directory):
            while holder_of(self.directory, jobs.is_over) is not None:
                time.sleep(LOCK_POLL_SECONDS)
                pause = LOCK_POLL_SECONDS
            time.sleep(pause)
            pause = min(2 * pause, MAX_SQUEUE_SECONDS)

    def _info(self) -> StudyInfo:
        manifest, limits = self._manifest, Limits()
        for record in study_records(self.directory):
            if isinstance(record, SessionStarted):
                limits = record.limits
        return StudyInfo(
            self.directory.name,
            self.directory,
            manifest.objective,
            limits,
            manifest.scheduler,
            None,
            manifest.source,
        )


def attach(directory: Path, callbacks: Sequence[Callback] = ()) -> AttachedStudy:
    """A study that runs now, or is about to.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    StudyNotRunning : nobody runs it.
    """
    attached = AttachedStudy(directory, callbacks)
    if not run_status(directory):
        raise not_running_error(directory)
    return attached


def not_running_error(directory: Path) -> StudyNotRunning:
    """The error that says so."""
    return StudyNotRunning(
        f"{directory} is not running: `daskhpo status {directory}` shows where it stands, and "
        f"`daskhpo resume {directory}` goes on with it"
    )
