"""How many jobs there should be: what to submit, what to give back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

MIN_JOB_SECONDS = 600.0  # a job that gets only what is left of a budget is not submitted for less


class JobPhase(Enum):
    """Where a job stands."""

    PENDING = "waiting"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True)
class WorkerJob:
    """A job of workers, as it was last seen. All times in seconds.

    Attributes
    ----------
    walltime : the longest that it may run.
    idle : for so long nothing has run on its workers; 0 if something does.
    retiring : its workers have been told to leave.
    free : nobody holds anything on its workers any more.
    """

    name: str
    state: JobPhase
    walltime: float
    idle: float = 0.0
    retiring: bool = False
    free: bool = False


@dataclass(frozen=True)
class ScalingLimits:
    """What was asked for.

    Attributes
    ----------
    jobs : most at a time.
    slots_per_job : trials that one job can run at a time.
    gpus_per_job : what a job uses of the budget each second; 1 if it has none.
    walltime : seconds of each job.
    max_gpu_seconds : the budget of all jobs; None: no limit.
    idle_timeout : seconds after which an idle job is given back.
    """

    jobs: int
    slots_per_job: int
    gpus_per_job: int
    walltime: float
    max_gpu_seconds: float | None
    idle_timeout: float


@dataclass(frozen=True)
class ClusterState:
    """What there is.

    Attributes
    ----------
    jobs : in the order in which they were submitted; none that are over.
    wanted, lately_wanted : slots that the study could fill now, and the most it could have filled
        in the last ``idle_timeout``; infinite if it could fill any number.
    spent : GPU-seconds of jobs that are over.
    may_submit : so many jobs may be submitted now.
    """

    jobs: tuple[WorkerJob, ...] = ()
    wanted: float = math.inf
    lately_wanted: float = math.inf
    spent: float = 0.0
    may_submit: float = math.inf


@dataclass(frozen=True)
class ScalingPlan:
    """What to do.

    Attributes
    ----------
    submit : walltimes of jobs.
    retire : jobs whose workers shall leave.
    cancel : jobs that hold nothing.
    exhausted : another job was wanted, and the budget does not allow it.
    """

    submit: tuple[float, ...] = ()
    retire: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    exhausted: bool = False


def plan_scaling(rules: ScalingLimits, seen: ClusterState) -> ScalingPlan:
    """What to do about what there is. No clock, no Slurm: a table of states tests it."""
    staying = [job for job in seen.jobs if not job.retiring]
    cancel = [job.name for job in seen.jobs if job.retiring and job.free]
    retire: list[str] = []
    surplus = len(staying) - _needed(rules, seen.lately_wanted)
    for job in _expendable(rules, staying)[: max(0, surplus)]:
        (cancel if job.state is JobPhase.PENDING else retire).append(job.name)
    missing = min(_needed(rules, seen.wanted) - len(staying), rules.jobs - len(seen.jobs))
    walltimes = _affordable(rules, seen, int(min(max(0, missing), seen.may_submit)))
    short = missing > 0 and seen.may_submit > 0 and not walltimes
    return ScalingPlan(tuple(walltimes), tuple(retire), tuple(cancel), exhausted=short)


def _needed(rules: ScalingLimits, slots: float) -> int:
    """Jobs that so many slots take."""
    return rules.jobs if slots == math.inf else min(rules.jobs, -int(-slots // rules.slots_per_job))


def _expendable(rules: ScalingLimits, jobs: list[WorkerJob]) -> list[WorkerJob]:
    """Jobs that may go: of those that wait the newest first, then the longest idle ones."""
    waiting = [job for job in reversed(jobs) if job.state is JobPhase.PENDING]
    idle = [job for job in jobs if job.state is JobPhase.RUNNING and job.idle >= rules.idle_timeout]
    return waiting + sorted(idle, key=lambda job: -job.idle)


def _affordable(rules: ScalingLimits, seen: ClusterState, n: int) -> list[float]:
    """Walltimes of up to so many jobs, for each of which all that it may use is set aside."""
    if rules.max_gpu_seconds is None:
        return [rules.walltime] * n
    promised = sum(job.walltime for job in seen.jobs) * rules.gpus_per_job
    left = rules.max_gpu_seconds - seen.spent - promised
    walltimes = []
    for _ in range(n):
        seconds = min(rules.walltime, left // rules.gpus_per_job // 60 * 60)  # Slurm counts minutes
        if seconds < min(rules.walltime, MIN_JOB_SECONDS):
            break
        walltimes.append(seconds)
        left -= seconds * rules.gpus_per_job
    return walltimes
