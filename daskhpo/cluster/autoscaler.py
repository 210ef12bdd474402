"""Autoscaler of a Slurm cluster: observe jobs and workers, carry out the plan."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import SchedulerPlugin, Status
from tornado.ioloop import PeriodicCallback

from daskhpo.cluster import jobs
from daskhpo.cluster.scaling import (
    ClusterState,
    JobPhase,
    ScalingLimits,
    ScalingPlan,
    WorkerJob,
    plan_scaling,
)
from daskhpo.cluster.shell import CommandFailed, CommandMissing

logger = logging.getLogger("daskhpo")

WORKER_CHECK_SECONDS = 5.0  # between two checks of the workers
SQUEUE_SECONDS = 30.0  # between two calls of squeue, unless a job lost its workers
SUBMIT_RETRY_SECONDS = 30.0  # after a rejected or failed job; doubled for each in a row
MAX_RETRY_SECONDS = 1800.0
LOG_LINES = 15
# what dask-jobqueue raises
SBATCH_FAILURE = r"Exit code: (-?\d+)\nCommand:\n(.*?)\nstdout:\n(.*)stderr:\n(.*)"


@dataclass(slots=True)
class _TrackedJob:
    """A job of workers. Times are in seconds of the monotonic clock."""

    name: str
    number: str
    walltime: float
    submitted: float
    state: JobPhase = JobPhase.PENDING
    ran: float = 0.0  # seconds that it had run when last seen
    seen: float = 0.0
    connected: bool = False  # it has workers, or had some
    has_workers: bool = False
    busy: float = 0.0  # time at which something last ran there
    retiring: bool = False
    free: bool = False


class _WorkerArrivals(SchedulerPlugin):  # type: ignore[misc]
    """Scheduler plugin that reports the job of each new worker."""

    def __init__(self, came: Callable[[str], None]) -> None:
        self._came = came

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self._came(_job_of(scheduler.workers[worker]))


def _job_of(worker: Any) -> str:
    return str(worker.name).rpartition("-")[0]


class SlurmAutoscaler:
    """Autoscaler of one cluster: runs in its event loop, and ends with it.

    Jobs that have ended are removed from Dask's own record; else Dask would submit them again.

    Parameters
    ----------
    options : returns dask-jobqueue's options of a job, given its walltime in seconds.
    """

    def __init__(
        self,
        cluster: Any,
        rules: ScalingLimits,
        options: Callable[[float], dict[str, Any]],
        job_name: str,
        log_directory: Path,
    ) -> None:
        self._cluster, self._rules, self._options = cluster, rules, options
        self._job_name, self._log_directory = job_name, log_directory
        self._jobs: dict[str, _TrackedJob] = {}
        self._spent = 0.0  # GPU-seconds of jobs that have ended
        self._wanted: deque[tuple[float, float]] = deque()  # time, slots
        self._n_failures = 0  # in a row
        self._not_before = 0.0
        self._asked = 0.0
        self._warned: set[str] = set()

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that all jobs have used so far; without GPUs, job-hours."""
        ran = sum(job.ran for job in self._jobs.values())
        return (self._spent + ran * self._rules.gpus_per_job) / 3600

    async def start(self) -> None:
        """Submit the first jobs.

        Raises
        ------
        CommandMissing, CommandFailed : Slurm's commands are missing; it rejects the first job.
        """
        steps = plan_scaling(self._rules, ClusterState())
        if not steps.submit:
            logger.warning("%s", self._exhausted())
        await self._submit(steps.submit[:1])
        try:
            await self._submit(steps.submit[1:])
        except CommandFailed as error:  # such as a limit on jobs: use those that were submitted
            self._failed(f"Slurm rejected a job: {error}")
        self._cluster.scheduler.add_plugin(_WorkerArrivals(self._worker_arrived))
        check = PeriodicCallback(self._tick, WORKER_CHECK_SECONDS * 1000)
        self._cluster.periodic_callbacks["daskhpo-autoscaler"] = check
        check.start()

    def _worker_arrived(self, name: str) -> None:
        """Record that a job has a worker, which may leave before the next check."""
        job = self._jobs.get(name)
        if job is not None and not job.connected:
            job.connected, job.state, job.busy = True, JobPhase.RUNNING, time.monotonic()
            self._n_failures, self._not_before = 0, 0.0

    # -- observe ---------------------------------------------------------------------------------

    async def _tick(self) -> None:
        if self._cluster.status is not Status.running:
            return
        now = time.monotonic()
        self._observe_workers(now)
        lost = any(job.connected and not job.has_workers for job in self._jobs.values())
        if lost or now - self._asked >= SQUEUE_SECONDS:
            await self._observe_jobs()
        if self._cluster.status is Status.running:
            await self._act(plan_scaling(self._rules, self._seen(now)))

    def _observe_workers(self, now: float) -> None:
        scheduler, broker = self._cluster.scheduler, self._broker
        of_job: dict[str, list[Any]] = {}
        for worker in scheduler.workers.values():
            of_job.setdefault(_job_of(worker), []).append(worker)
        for job in self._jobs.values():
            workers = of_job.get(job.name, [])
            job.has_workers = bool(workers)
            if workers and not job.connected:  # it connected before the job was recorded
                self._worker_arrived(job.name)
            job.free = not any(worker.processing or worker.has_what for worker in workers)
            held_idle = broker is not None and all(
                broker.is_idle(worker.address)
                and len(worker.processing) <= broker.is_held(worker.address)
                and not worker.has_what
                for worker in workers
            )
            if not (job.free or held_idle):
                job.busy = now
        self._wanted.append((now, self._n_wanted()))
        while self._wanted[0][0] < now - self._rules.idle_timeout:
            self._wanted.popleft()

    async def _observe_jobs(self) -> None:
        """Ask Slurm which jobs are pending, run, or have ended."""
        self._asked = now = time.monotonic()
        known = list(self._jobs.values())
        try:
            found = {one.number: one for one in await asyncio.to_thread(self._listed)}
        except (CommandFailed, CommandMissing) as error:  # it may be unavailable for a while
            logger.info("the jobs could not be listed: %s", error)
            return
        for job in known:
            one = found.get(job.number)
            if one is None or one.state == "COMPLETING":
                if not job.has_workers:
                    self._is_over(job, now)
            elif one.is_pending:  # possibly after a requeue
                job.state = JobPhase.PENDING
            else:
                job.state = JobPhase.RUNNING
                if one.seconds_left is not None:
                    job.ran = max(0.0, job.walltime - one.seconds_left)
            job.seen = now

    def _listed(self) -> list[jobs.SlurmJob]:
        return jobs.jobs_named(self._job_name)

    def _is_over(self, job: _TrackedJob, now: float) -> None:
        # It may have run all of the time since it was last seen: count that.
        since = job.seen or job.submitted
        ran = min(job.walltime, job.ran + now - since)
        self._spent += ran * self._rules.gpus_per_job
        self._forget(job.name)
        if not job.connected and not job.retiring:
            self._failed(f"job {job.number} ended before its workers connected: {self._log(job)}")
        elif not job.retiring:
            logger.info("worker job %s has ended", job.number)

    def _seen(self, now: float) -> ClusterState:
        found = tuple(
            WorkerJob(
                job.name,
                job.state,
                job.walltime,
                idle=now - job.busy if job.has_workers else 0.0,
                retiring=job.retiring,
                free=job.free,
            )
            for job in self._jobs.values()
        )
        may_submit = math.inf if not self._n_failures else float(now >= self._not_before)
        lately = max(slots for _, slots in self._wanted)
        return ClusterState(found, self._wanted[-1][1], lately, self._spent, may_submit)

    def _n_wanted(self) -> float:
        """Return the slots that studies could fill; infinite before the first study."""
        broker = self._broker
        return math.inf if broker is None or not broker.n_joined else broker.wanted

    @property
    def _broker(self) -> Any:
        return self._cluster.scheduler.extensions.get("daskhpo")

    # -- act -------------------------------------------------------------------------------------

    async def _act(self, steps: ScalingPlan) -> None:
        for name in steps.retire:
            self._jobs[name].retiring = True
            logger.info("worker job %s is idle: its workers are retired", self._jobs[name].number)
            for worker in list(self._cluster.scheduler.workers.values()):
                if _job_of(worker) == name:
                    self._broker.retire(worker.address)
        if steps.cancel:
            for name in steps.cancel:
                self._jobs[name].retiring = True
                self._cluster.worker_spec.pop(name, None)
            await self._cluster._correct_state()
        if steps.submit:
            try:
                await self._submit(steps.submit)
            except (CommandFailed, CommandMissing) as error:
                self._failed(f"Slurm rejected a job: {error}")
        if steps.exhausted:
            self._warn_once(self._exhausted())
            if not self._jobs and self._broker is not None:
                self._broker.stop("the GPU-hours are spent")

    async def _submit(self, walltimes: tuple[float, ...]) -> None:
        """Submit jobs. If one is rejected, the others are kept, and its error is raised."""
        cluster, added = self._cluster, {}
        for walltime in walltimes:
            ((name, spec),) = cluster.new_worker_spec().items()
            cluster._i += 1  # use no name twice: a worker with that name may still be closing
            options = spec["options"] | self._options(walltime)
            cluster.worker_spec[name] = spec | {"options": options}
            added[name] = walltime
        if not added:
            return
        problem: BaseException | None = None
        try:
            await cluster._correct_state()
        except (RuntimeError, OSError, ValueError) as error:
            problem = _refusal(error)
        now = time.monotonic()
        for name, walltime in added.items():
            job = cluster.workers.get(name)
            if job is not None and job.job_id is not None:
                self._jobs[name] = _TrackedJob(name, job.job_id, walltime, now)
            else:
                if job is not None:
                    job.status = Status.failed
                self._forget(name)
        if problem is not None:
            raise problem

    def _forget(self, name: str) -> None:
        self._jobs.pop(name, None)
        self._cluster.worker_spec.pop(name, None)
        self._cluster.workers.pop(name, None)

    def _failed(self, what: str) -> None:
        """Delay the next submission; the delay doubles with each failure in a row."""
        wait = min(MAX_RETRY_SECONDS, SUBMIT_RETRY_SECONDS * 2**self._n_failures)
        self._n_failures += 1
        self._not_before = time.monotonic() + wait
        logger.warning("%s\nretrying in %d s", what, wait)

    def _warn_once(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("%s", what)

    def _exhausted(self) -> str:
        hours = (self._rules.max_gpu_seconds or 0.0) / 3600
        return (
            f"max_gpu_hours={hours:g} allows no further job: the budget is used, or reserved for "
            "submitted jobs"
        )

    def _log(self, job: _TrackedJob) -> str:
        """Return the last lines of a job's log."""
        found = sorted(self._log_directory.glob(f"*-{job.number}.log"))
        if not found:
            return f"no log was found in {self._log_directory}"
        lines = found[-1].read_text(errors="replace").splitlines()
        return "\n".join([f"{found[-1]}:", *lines[-LOG_LINES:]])


def _refusal(error: BaseException) -> BaseException:
    """Convert dask-jobqueue's error of a failed command to one of ours."""
    if isinstance(error, FileNotFoundError):
        return CommandMissing("sbatch was not found; is it on the PATH?")
    found = re.search(SBATCH_FAILURE, str(error), re.DOTALL)
    if found is None:
        return error
    code, command, *printed = found.groups()
    output = "\n".join(part.strip() for part in printed if part.strip())
    return CommandFailed([command.split()[0], "JOB_SCRIPT"], int(code), output)
