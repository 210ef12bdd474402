"""The end of this process's Slurm job, and what training must leave free of it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

logger = logging.getLogger("daskhpo.worker")

START_TIME = "SLURM_JOB_START_TIME"  # by the same clock
END_TIME = "SLURM_JOB_END_TIME"  # seconds since 1970; set by newer Slurms, else by our workers
STEP_MARGIN = 1.2  # a step may take longer than the longest recent one by this factor


class StepTimer:
    """Durations of the last few training steps.

    Parameters
    ----------
    keep : number of steps to remember.
    """

    def __init__(self, keep: int) -> None:
        self._seconds: deque[float] = deque(maxlen=keep)

    def observe(self, seconds: float) -> None:
        """Record the duration of a step, in seconds."""
        self._seconds.append(seconds)

    @property
    def longest(self) -> float:
        """Longest of the remembered steps, in seconds; 0 before the first one.

        May be read in another thread.
        """
        return max(self._seconds.copy(), default=0.0)


@dataclass(frozen=True)
class WalltimeReserve:
    """The last part of a job, kept free to write states and to leave.

    Attributes
    ----------
    seconds : its length.
    limit : largest result of :meth:`needed`; a step that takes longer is begun, and lost.
    """

    seconds: float
    limit: float = math.inf

    def needed(self, step: float) -> float:
        """Return how long before the job's end a step must begin at the latest, seconds.

        Parameters
        ----------
        step : longest recent step of training, seconds; 0: none is known.
        """
        return min(self.limit, self.seconds + STEP_MARGIN * step)

    def fits(self, step: float, left: float | None) -> bool:
        """Return True if another step fits into a job.

        Parameters
        ----------
        step : as for :meth:`needed`.
        left : seconds until the job's end; None: no end is known.
        """
        return left is None or self.needed(step) < left


def remaining_walltime() -> float | None:
    """Return the seconds until this process's job ends; None: not known, or no job."""
    end = os.environ.get(END_TIME)
    return None if end is None else max(0.0, float(end) - time.time())


def job_end(
    environ: Mapping[str, str],
    left: float | None,
    walltime: float | None,
    started: float,
    now: float,
) -> float | None:
    """Return the end of a job, in seconds since 1970; None: not known.

    The first of these that is known: the environment, Slurm's answer, the requested walltime. The
    first two are by the clock of another machine; this one may be behind it. But the job lasts no
    longer than its time limit from now on.

    Parameters
    ----------
    environ : environment of the job; newer Slurm versions set ``SLURM_JOB_END_TIME``.
    left : seconds until the time limit, reported by Slurm at the time ``now``; None: Slurm was not
        asked, or reported no limit.
    walltime : seconds that were requested for the job; None: not known.
    started, now : start of the job's process and current time, in seconds since 1970.
    """
    latest = None if walltime is None else started + walltime
    if environ.get(END_TIME, "").isdecimal():
        end = float(environ[END_TIME])
        if environ.get(START_TIME, "").isdecimal():
            return min(end, now + end - float(environ[START_TIME]))
        return end
    if left is not None:
        return now + left if latest is None else min(now + left, latest)
    return latest


def find_job_end(walltime: float | None = None) -> float | None:
    """Return the end of this process's job, in seconds since 1970; None: not known.

    Asks Slurm once if the environment does not contain it.

    Parameters
    ----------
    walltime : seconds that were requested for the job, counted from now; None: not known.
    """
    now, left = time.time(), None
    if END_TIME not in os.environ:
        from daskhpo.cluster.jobs import own_seconds_left
        from daskhpo.cluster.shell import CommandError

        try:
            left = own_seconds_left()
        except CommandError as error:
            logger.info("the end of this job could not be read from Slurm: %s", error)
    return job_end(os.environ, left, walltime, now, time.time())
