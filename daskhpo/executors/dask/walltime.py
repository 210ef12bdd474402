"""When the Slurm job of this process ends."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping

logger = logging.getLogger("daskhpo.worker")

END_TIME = "SLURM_JOB_END_TIME"  # seconds since 1970; newer Slurms set it, our workers do otherwise


def remaining_walltime() -> float | None:
    """Seconds until this process's Slurm job ends, or None outside one."""
    end = os.environ.get(END_TIME)
    return None if end is None else max(0.0, float(end) - time.time())


def job_end(
    environ: Mapping[str, str],
    left: str | None,
    walltime: float | None,
    started: float,
    now: float,
) -> float | None:
    """When a job ends, in seconds since 1970, by the best that is known; None: not known.

    Parameters
    ----------
    environ : the job's environment, in which newer Slurms say it.
    left : what ``squeue --format=%L`` said of the job just now; None if it was not asked.
    walltime : seconds for which the job was submitted; None if nobody told.
    started, now : when the job's process began, and the time, in seconds since 1970.
    """
    if environ.get(END_TIME, "").isdecimal():
        return float(environ[END_TIME])
    if left is not None and (seconds := slurm_seconds(left)) is not None:
        return now + seconds
    return None if walltime is None else started + walltime


def find_job_end(walltime: float | None = None) -> float | None:
    """When this process's job ends; asks Slurm once if the environment does not say it.

    Parameters
    ----------
    walltime : see :func:`job_end`; counted from now.
    """
    now, left = time.time(), None
    number = os.environ.get("SLURM_JOB_ID")
    if number is not None and END_TIME not in os.environ:
        from daskhpo.cluster.shell import CommandFailed, CommandMissing, call

        try:
            left = call(["squeue", "--noheader", f"--jobs={number}", "--format=%L"], timeout=20)
        except (CommandFailed, CommandMissing) as error:
            logger.info("the end of job %s is not known from Slurm: %s", number, error)
    return job_end(os.environ, left, walltime, now, time.time())


def slurm_seconds(text: str) -> float | None:
    """Seconds of a time as Slurm writes and reads it; None if it names none (``UNLIMITED``).

    That is minutes, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``.

    >>> [slurm_seconds(text) for text in ("30", "90:00", "04:00:00", "1-00", "UNLIMITED")]
    [1800.0, 5400.0, 14400.0, 86400.0, None]
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text.strip())
    if found is None:
        return None
    days, clock = found.groups()
    numbers = [int(part) for part in clock.split(":")]
    if days is not None:
        numbers += [0] * (3 - len(numbers))  # they begin with hours
    elif len(numbers) == 1:
        numbers = [0, *numbers, 0]
    else:
        numbers = [0] * (3 - len(numbers)) + numbers
    hours, minutes, seconds = numbers
    return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)
