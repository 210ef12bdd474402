"""When the Slurm job of this process ends."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping

logger = logging.getLogger("daskhpo.worker")

END_TIME = "SLURM_JOB_END_TIME"  # seconds since 1970; newer Slurms set it, our workers do otherwise
STEP_MARGIN = 1.2  # a step of training may take longer than those before by this factor


class StepTimer:
    """How long a step of training takes, by the last few.

    Parameters
    ----------
    keep : so many steps are remembered.
    """

    def __init__(self, keep: int) -> None:
        self._seconds: deque[float] = deque(maxlen=keep)

    def observe(self, seconds: float) -> None:
        """A step took so long."""
        self._seconds.append(seconds)

    @property
    def longest(self) -> float:
        """Seconds to be prepared for; 0 before the first step. May be read in another thread."""
        return max(self._seconds.copy(), default=0.0)


def remaining_walltime() -> float | None:
    """Seconds until this process's Slurm job ends, or None outside one."""
    end = os.environ.get(END_TIME)
    return None if end is None else max(0.0, float(end) - time.time())


def job_end(
    environ: Mapping[str, str],
    left: float | None,
    walltime: float | None,
    started: float,
    now: float,
) -> float | None:
    """When a job ends, in seconds since 1970, by the best that is known; None: not known.

    Parameters
    ----------
    environ : the job's environment, in which newer Slurms say it.
    left : seconds that were left by what Slurm said just now; None: it was not asked, or names
        no end.
    walltime : seconds for which the job was submitted; None if nobody told.
    started, now : when the job's process began, and the time, in seconds since 1970.
    """
    if environ.get(END_TIME, "").isdecimal():
        return float(environ[END_TIME])
    if left is not None:
        return now + left
    return None if walltime is None else started + walltime


def find_job_end(walltime: float | None = None) -> float | None:
    """When this process's job ends; asks Slurm once if the environment does not say it.

    Parameters
    ----------
    walltime : see :func:`job_end`; counted from now.
    """
    now, left = time.time(), None
    if END_TIME not in os.environ:
        from daskhpo.cluster.jobs import own_seconds_left
        from daskhpo.cluster.shell import CommandFailed, CommandMissing

        try:
            left = own_seconds_left()
        except (CommandFailed, CommandMissing) as error:
            logger.info("Slurm does not say when this job ends: %s", error)
    return job_end(os.environ, left, walltime, now, time.time())
