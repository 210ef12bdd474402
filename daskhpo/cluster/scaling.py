"""Plan of the autoscaler: which jobs to submit, retire and cancel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

MIN_JOB_SECONDS = 600.0  # shortest job that is submitted with the rest of a budget


class JobPhase(Enum):
    """Phase of a job of workers."""

    PENDING = "waiting"
    RUNNING = "running"


@dataclass(frozen=True)
class WorkerJob:
    """A job of workers, as it was last seen. All times in seconds.

    Attributes
    ----------
    walltime : its time limit.
    idle : time since something ran on its workers; 0 if something runs.
    retiring : True: its workers retire, or it is being cancelled.
    free : True: nothing runs on its workers, and they hold no data; also if it has none.
    """

    name: str
    state: JobPhase
    walltime: float
    idle: float = 0.0
    retiring: bool = False
    free: bool = False


@dataclass(frozen=True)
class ScalingLimits:
    """Limits that the user has set. All times in seconds.

    Attributes
    ----------
    jobs : largest number at a time.
    slots_per_job : trials that one job can run at a time.
    gpus_per_job : GPU-seconds that a job uses of the budget each second; 1 if it has no GPUs.
    walltime : time limit of each job.
    max_gpu_seconds : GPU-seconds that all jobs together may use; None: no limit.
    idle_timeout : time after which a job that is not needed is retired, if it is idle.
    """

    jobs: int
    slots_per_job: int
    gpus_per_job: int
    walltime: float
    max_gpu_seconds: float | None
    idle_timeout: float


@dataclass(frozen=True)
class ClusterState:
    """Jobs and demand, as last observed.

    Attributes
    ----------
    jobs : jobs that have not ended, in the order of their submission.
    wanted, lately_wanted : slots that the studies could fill now, and the maximum of this in the
        last ``idle_timeout``; infinite: any number.
    spent : GPU-seconds of jobs that have ended.
    may_submit : number of jobs that may be submitted now.
    """

    jobs: tuple[WorkerJob, ...] = ()
    wanted: float = math.inf
    lately_wanted: float = math.inf
    spent: float = 0.0
    may_submit: float = math.inf


@dataclass(frozen=True)
class ScalingPlan:
    """Jobs to submit, retire and cancel.

    Attributes
    ----------
    submit : walltimes of jobs to submit, in seconds.
    retire : names of jobs whose workers are to retire.
    cancel : names of pending jobs that are not needed, and of jobs whose workers have retired.
    exhausted : True: another job is needed, and the budget does not allow it.
    """

    submit: tuple[float, ...] = ()
    retire: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    exhausted: bool = False


def plan_scaling(rules: ScalingLimits, seen: ClusterState) -> ScalingPlan:
    """Plan what to submit, retire and cancel; a pure function, without Slurm or clock."""
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
    """Return the number of jobs that have so many slots, at most ``rules.jobs``."""
    return rules.jobs if slots == math.inf else min(rules.jobs, -int(-slots // rules.slots_per_job))


def _expendable(rules: ScalingLimits, jobs: list[WorkerJob]) -> list[WorkerJob]:
    """Return jobs that may go: pending ones, newest first, then the longest idle."""
    waiting = [job for job in reversed(jobs) if job.state is JobPhase.PENDING]
    idle = [job for job in jobs if job.state is JobPhase.RUNNING and job.idle >= rules.idle_timeout]
    return waiting + sorted(idle, key=lambda job: -job.idle)


def _affordable(rules: ScalingLimits, seen: ClusterState, n: int) -> list[float]:
    """Return the walltimes of up to ``n`` jobs that the budget allows.

    The whole walltime of each job is reserved.
    """
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
