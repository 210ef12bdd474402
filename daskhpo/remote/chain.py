"""What a head decides about its own job: when to stop before the end, and whether another follows.

A chain is a Slurm job array of which one task runs at a time: all links are there before the first
one begins, so that no way of dying can break it.
"""

from __future__ import annotations

from dataclasses import dataclass

from daskhpo.cluster.walltime import STEP_MARGIN

BASE_SECONDS = 60.0  # to write states and to give the workers' jobs back
LARGEST_PART = 0.25  # of a walltime that may be given up


@dataclass(frozen=True)
class Finished:
    """The study is finished, or stopped for a reason that holds for other jobs too."""


@dataclass(frozen=True)
class WalltimeReached:
    """Only the job has come to its end."""


@dataclass(frozen=True)
class Crashed:
    """The session raised; ``reported``: some trial had made progress before."""

    reported: bool


JobOutcome = Finished | WalltimeReached | Crashed
"""How the session of a job ended."""


def should_continue(end: JobOutcome) -> bool:
    """Whether the next link of the chain shall go on with the study.

    After an error it may, once: what broke in the middle (a file server, a node) is often well
    again in another job, and a study that cannot run at all breaks before its first report.
    """
    match end:
        case Finished():
            return False
        case WalltimeReached():
            return True
        case Crashed(reported):
            return reported


def stop_margin(walltime: float, longest_step: float) -> float:
    """How long before the end of its job a head begins to stop.

    Trials hand over when the step in which they are is trained. If that takes too large a part of
    the job, what is left of it is lost, and trained again.

    Parameters
    ----------
    walltime : of the whole job, seconds.
    longest_step : seconds that a step of training took lately; 0 if none is known.
    """
    return min(LARGEST_PART * walltime, BASE_SECONDS + STEP_MARGIN * longest_step)
