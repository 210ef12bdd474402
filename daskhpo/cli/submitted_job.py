"""What a submitted job runs: scheduler and coordinator of a study (``python -m`` this, PATH)."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daskhpo.callbacks import ConsoleProgress
from daskhpo.callbacks.base import Callback
from daskhpo.checkpoints import open_store
from daskhpo.cluster import jobs
from daskhpo.cluster.shell import CommandFailed, CommandMissing
from daskhpo.cluster.walltime import find_job_end
from daskhpo.core.events import Ended, Launched, Record, Reported
from daskhpo.engine.lock import STALE_SECONDS, holder_of
from daskhpo.engine.options import RunOptions
from daskhpo.engine.requests import Listener, asked_to_stop
from daskhpo.engine.session import has_work, study_records
from daskhpo.executors.dask.handle import StudyHandle, start
from daskhpo.remote.allocation import allocation_cluster
from daskhpo.remote.chain import Broke, End, OutOfTime, Over, goes_on, stop_seconds
from daskhpo.remote.script import worker_name
from daskhpo.remote.submission import (
    JobFolder,
    Place,
    Submission,
    WorkerJobs,
    WorkerSteps,
    submission_name,
)
from daskhpo.results.progress import Story
from daskhpo.study.study import load_source

logger = logging.getLogger("daskhpo")

LOOK_SECONDS = 1.0
OUT_OF_TIME = "the job in which it ran came to its end"


def main(argv: list[str]) -> int:
    """Run the study that was submitted, as far as this job goes."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    directory = Path(argv[0])
    me = jobs.own_submission() or "none"
    submission = JobFolder(directory).submission()
    if submission is None:
        raise ValueError(f"{directory} was not submitted: there is no submission.json in its job/")
    ending = Ending(submission.job.walltime)
    end = run(directory, submission, me, ending)
    if submission.job.links > 1 and not goes_on(end):
        _quietly(jobs.cancel, me, waiting_only=True)
    return int(isinstance(end, Broke))


def run(directory: Path, submission: Submission, me: str, ending: Ending) -> End:
    """One link of the chain: a session, if there is anything to do."""
    if (reason := asked_to_stop(directory, submission_name(me))) is not None:
        logger.info("the study was stopped: %s", reason)
        return Over()
    if not _await_turn(directory, ending):
        return OutOfTime()
    try:
        study = load_source(submission.source)
        study.storage, study.name = directory.parent, directory.name
        options = _with_time_left(submission, directory)
        if options is None or not has_work(
            directory, study.problem, options.limits, options.policy
        ):
            logger.info("nothing is left to do")
            return Over()
    except Exception:
        logger.exception("the study cannot be run")
        return Broke(reported=False)
    pace, n_before = Pace(), _n_reports(directory)
    try:
        with _cluster(submission, JobFolder(directory), me) as cluster:
            _write_place(JobFolder(directory), cluster)
            handle = start(
                problem=study.problem,
                directory=directory,
                store=open_store(directory),
                trainable=study.trainable,
                options=options,
                resume=True,
                source=submission.source,
                client=cluster,
                callbacks=[ConsoleProgress(), pace],
            )
            listener = Listener(directory, submission_name(me), handle.stop)
            with contextlib.closing(listener), ending.watched(handle, pace):
                result = handle.wait()
    except Exception:
        logger.exception("the session broke")
        return Broke(reported=_n_reports(directory) > n_before)
    return OutOfTime() if result.stop_reason == OUT_OF_TIME else Over()


class Ending:
    """The end of this job: by SIGTERM, or because its walltime is nearly over.

    Parameters
    ----------
    walltime : of the job, seconds; in case that Slurm does not say how much is left.
    """

    def __init__(self, walltime: float) -> None:
        self.walltime = walltime
        end = find_job_end(walltime)
        self._end = math.inf if end is None else time.monotonic() + end - time.time()
        self.begun = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self.begun.set())

    @contextlib.contextmanager
    def watched(self, handle: StudyHandle, pace: Pace) -> Iterator[None]:
        """Stop the study in time."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK_SECONDS):
                left = self._end - time.monotonic()
                if left <= stop_seconds(self.walltime, pace.longest) or self.begun.is_set():
                    handle.stop(OUT_OF_TIME)
                    return

        thread = threading.Thread(target=watch, name="daskhpo-ending", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Pace(Callback):
    """How long units of training take."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self._seconds: deque[float] = deque(maxlen=100)

    @property
    def longest(self) -> float:
        """Seconds of the longest of the last units; 0 before the first."""
        return max(self._seconds.copy(), default=0.0)

    def on_record(self, record: Record, story: Story) -> None:
        match record:
            case Launched(trial):
                self._last[trial] = record.seconds
            case Reported(trial):
                for step in record.steps:
                    self._seconds.append(step.seconds - self._last.get(trial, step.seconds))
                    self._last[trial] = step.seconds
            case Ended(trial):
                self._last.pop(trial, None)


def _await_turn(directory: Path, ending: Ending) -> bool:
    """Wait until the head before us is gone; False if this job ends before that."""
    patience = time.monotonic() + 2 * STALE_SECONDS
    told = False
    while (holder := holder_of(directory, jobs.is_over)) is not None:
        if not told:
            logger.info("waiting for process %s on %s", holder["pid"], holder["host"])
            told = True
        if ending.begun.wait(LOOK_SECONDS) or time.monotonic() >= patience:
            return False
    return not ending.begun.is_set()


def _with_time_left(submission: Submission, directory: Path) -> RunOptions | None:
    """The options with what is left of the time budget; None if nothing is."""
    options, budget = submission.options, submission.options.limits.time_budget
    if budget is None:
        return options
    now = max((record.seconds for record in study_records(directory)), default=0.0)
    left = budget - (now - submission.since)
    return replace(options, limits=replace(options.limits, time_budget=left)) if left > 0 else None


def _n_reports(directory: Path) -> int:
    return sum(isinstance(record, Reported) for record in study_records(directory))


@contextlib.contextmanager
def _cluster(submission: Submission, folder: JobFolder, me: str) -> Iterator[Any]:
    """The scheduler, in this process, and workers, wherever they were asked for."""
    match submission.workers:
        case WorkerSteps() as steps:
            with allocation_cluster(steps, folder, submission.job.queue) as cluster:
                yield cluster
        case WorkerJobs(words):
            from daskhpo.cluster.slurm import slurm_cluster

            name = worker_name(folder.study.name, me)
            _quietly(jobs.cancel_named, name)  # of a link that was killed: they have no scheduler
            places = {
                "log_directory": str(folder.path),
                "shared_temp_directory": str(folder.path),
            }
            with slurm_cluster(**places | words | {"job_name": name}) as cluster:
                yield cluster


def _write_place(folder: JobFolder, cluster: Any) -> None:
    port = urlsplit(cluster.dashboard_link).port
    assert port is not None, cluster.dashboard_link
    folder.write_place(Place(jobs.own_number() or "none", socket.gethostname(), port))


def _quietly(ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What Slurm answers; None if it does not, for it may be away for a while."""
    try:
        return ask(*args, **options)
    except (CommandMissing, CommandFailed) as error:
        logger.warning("%s", error)
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
