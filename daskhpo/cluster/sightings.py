"""Is a job still there? What Slurm's answers say, and what they leave open.

A job that ``squeue`` does not show need not have ended: the answer may be cached, or be of another
cluster. So a second source is asked, and what is given up is cancelled before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from daskhpo.cluster.parsers import SlurmJob

UNSEEN_SECONDS = 60.0  # a job that was never seen is not given up earlier
COMPLETING_SECONDS = 300.0  # a job that ends is waited for no longer
MAX_ABSENCES = 3  # answers in a row without a job that was seen before


@dataclass(frozen=True)
class Sightings:
    """Knowledge of a job. Times are in seconds of one clock.

    Attributes
    ----------
    submitted : time of its submission.
    seen : time at which it was last seen; None: never.
    absences : answers in a row that did not contain it.
    completing : time since which it is about to end; None: it is not.
    """

    submitted: float
    seen: float | None = None
    absences: int = 0
    completing: float | None = None


@dataclass(frozen=True)
class JobPending:
    """A job that is in the queue."""

    reason: str


@dataclass(frozen=True)
class JobRunning:
    """A job that runs; ``seconds_left`` until its time limit, None: not known."""

    seconds_left: float | None


@dataclass(frozen=True)
class JobEnded:
    """A job that has ended; ``state`` as Slurm names it."""

    state: str


@dataclass(frozen=True)
class JobLost:
    """A job that Slurm no longer knows or shows: cancel it, then forget it."""


@dataclass(frozen=True)
class JobUnseen:
    """A job that was not seen, and may be there."""


JobSighting = JobPending | JobRunning | JobEnded | JobLost | JobUnseen


def judge(
    known: Sightings,
    listed: SlurmJob | None,
    described: Sequence[SlurmJob] | None,
    now: float,
    *,
    connected: bool = False,
    requeues: bool = False,
) -> tuple[JobSighting, Sightings]:
    """Judge where a job stands after an answer of ``squeue``.

    Parameters
    ----------
    listed : the job, as ``squeue`` shows it; None: it does not.
    described : what ``scontrol`` says of a job that ``squeue`` does not show; empty: it does not
        know the job; None: no answer.
    now : time of the answer.
    connected : True: the job has workers now, so it runs.
    requeues : True: Slurm may put it back into the queue when it ends.
    """
    found = listed or next(iter(described or ()), None)
    if connected and (found is None or found.is_over):
        return JobRunning(None), replace(known, seen=now, absences=0)
    if found is not None:
        return _judge_found(known, found, now, requeues)
    known = replace(known, absences=known.absences + 1)
    if known.seen is None:
        is_lost = now - known.submitted >= UNSEEN_SECONDS and known.absences >= MAX_ABSENCES
    else:
        is_denied = described is not None
        is_lost = is_denied or known.absences >= MAX_ABSENCES
    return (JobLost() if is_lost else JobUnseen()), known


def _judge_found(
    known: Sightings, found: SlurmJob, now: float, requeues: bool
) -> tuple[JobSighting, Sightings]:
    known = replace(known, seen=now, absences=0)
    if found.is_over:
        return JobEnded(found.state), known
    if found.state == "COMPLETING":
        since = now if known.completing is None else known.completing
        known = replace(known, completing=since)
        patience = math.inf if requeues else COMPLETING_SECONDS
        return (JobLost() if now - since >= patience else JobRunning(found.seconds_left)), known
    known = replace(known, completing=None)
    if found.is_pending:
        return JobPending(found.reason), known
    return JobRunning(found.seconds_left), known
