"""Decisions of a controller: when to stop, and whether another job continues.

A chain is a Slurm job array of which one task runs at a time. All jobs are queued before the first
one starts, so a job that is killed cannot break the chain.
"""

from __future__ import annotations

from dataclasses import dataclass

from daskhpo.cluster.walltime import WalltimeReserve

BASE_SECONDS = 60.0  # to write states and to cancel the workers' jobs
LARGEST_PART = 0.25  # of a walltime that may be left unused


@dataclass(frozen=True)
class Finished:
    """A study that finished, or stopped for a reason that applies to later jobs."""


@dataclass(frozen=True)
class WalltimeReached:
    """A job that reached its end before the study did."""


@dataclass(frozen=True)
class Crashed:
    """A session that raised an exception.

    Attributes
    ----------
    reported : True if a trial had reported in this session.
    """

    reported: bool


JobOutcome = Finished | WalltimeReached | Crashed
"""The outcome of a job's session."""


def should_continue(end: JobOutcome) -> bool:
    """Return True if the next job of the chain should continue the study.

    After an error, only if a trial had reported: the cause (a file server, a node) is often gone in
    another job. A study that cannot run at all fails before its first report.
    """
    match end:
        case Finished():
            return False
        case WalltimeReached():
            return True
        case Crashed(reported):
            return reported


def stop_margin(walltime: float, longest_step: float) -> float:
    """Return how many seconds before the end of its job a controller stops.

    Trials are preempted when their current step ends. The margin is limited to a quarter of the
    walltime: a step that takes longer is lost, and trained again.

    Parameters
    ----------
    walltime : length of the whole job, seconds.
    longest_step : longest recent step of training, seconds; 0: none is known.
    """
    return WalltimeReserve(BASE_SECONDS, LARGEST_PART * walltime).needed(longest_step)
