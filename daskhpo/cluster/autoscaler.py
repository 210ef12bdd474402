"""Autoscaler of a Slurm cluster: observe jobs and workers, carry out the plan."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import SchedulerPlugin, Status
from tornado.ioloop import PeriodicCallback

from daskhpo.cluster import jobs
from daskhpo.cluster.parsers import SlurmJob, split_job_id
from daskhpo.cluster.reasons import explain
from daskhpo.cluster.registry import JobRegistry
from daskhpo.cluster.scaling import (
    ClusterState,
    JobPhase,
    ScalingLimits,
    ScalingPlan,
    WorkerJob,
    plan_scaling,
)
from daskhpo.cluster.shell import CommandError, in_thread
from daskhpo.cluster.sightings import (
    JobEnded,
    JobLost,
    JobPending,
    JobRunning,
    JobUnseen,
    Sightings,
    judge,
)
from daskhpo.cluster.supply import SUPPLY, WorkerOutlook

logger = logging.getLogger("daskhpo")

WORKER_CHECK_SECONDS = 5.0  # between two checks of the workers
SQUEUE_SECONDS = 30.0  # between two calls of squeue, unless a job lost its workers
START_SECONDS = 60.0  # between two questions when the first job will start
SUBMIT_RETRY_SECONDS = 30.0  # after a rejected or failed job; doubled for each in a row
MAX_RETRY_SECONDS = 1800.0
LOG_LINES = 15
MAX_DESCRIBED = 20  # jobs that scontrol is asked about, each by a call, after one of squeue


@dataclass(slots=True)
class _TrackedJob:
    """A job of workers. Times are in seconds of the monotonic clock."""

    name: str
    id: str
    walltime: float
    sightings: Sightings
    state: JobPhase = JobPhase.PENDING
    reason: str = ""  # why it waits, as Slurm names it
    ran: float = 0.0  # seconds that it had run when last seen
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
    registry : the cluster's jobs.
    options : returns dask-jobqueue's options of a job, given its walltime in seconds.
    log_directory : directory of the jobs' logs.
    requeues : True: Slurm may put jobs back into the queue.
    """

    def __init__(
        self,
        cluster: Any,
        registry: JobRegistry,
        rules: ScalingLimits,
        options: Callable[[float], dict[str, Any]],
        log_directory: Path,
        requeues: bool = False,
    ) -> None:
        self._cluster, self._registry = cluster, registry
        self._rules, self._options = rules, options
        self._log_directory, self._requeues = log_directory, requeues
        self._jobs: dict[str, _TrackedJob] = {}
        self._spent = 0.0  # GPU-seconds of jobs that have ended
        self._wanted: deque[tuple[float, float]] = deque()  # time, slots
        self._n_failures = 0  # in a row
        self._not_before = 0.0
        self._asked = 0.0
        self._warned: set[str] = set()
        self._starts = ""  # when Slurm expects a job to start, if no worker is there
        self._asked_start = -math.inf
        self._trouble = ""  # what went wrong last, if no worker has come since

    def outlook(self) -> WorkerOutlook:
        """Return why no worker is there, from what Slurm says of the jobs."""
        reasons = Counter(job.reason for job in self._waiting())
        said = [
            f"{n} worker {'job is' if n == 1 else 'jobs are'} pending"
            + (f" ({reason}): {explain(reason)[0]}" if reason else "")
            for reason, n in reasons.most_common(3)
        ]
        if self._starts:
            said.append(f"Slurm expects one to start at {self._starts}")
        running = [job.id for job in list(self._jobs.values()) if job.state is JobPhase.RUNNING]
        if running:
            said.append(f"job {running[0]} runs, and its workers have not connected yet")
        if self._trouble:
            said.append(self._trouble)
        return WorkerOutlook("; ".join(said))

    def job_rows(self) -> tuple[tuple[str, ...], ...]:
        """Return of each job, as text, what the dashboard's table of jobs shows.

        These are its id and state, how long it waited, ran and may run, its GPU-hours, and why it
        waits.
        """
        now = time.monotonic()
        return tuple(
            (
                job.id,
                job.state.value,
                f"{max(0.0, now - job.sightings.submitted - job.ran) / 3600:.2f} h",
                f"{job.ran / 3600:.2f} h",
                f"{max(0.0, job.walltime - job.ran) / 3600:.2f} h",
                f"{job.ran * self._rules.gpus_per_job / 3600:.2f}",
                job.reason if job.state is JobPhase.PENDING else "",
            )
            for job in list(self._jobs.values())
        )

    def _waiting(self) -> list[_TrackedJob]:
        return [job for job in list(self._jobs.values()) if job.state is JobPhase.PENDING]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that all jobs have used so far; without GPUs, job-hours."""
        ran = sum(job.ran for job in self._jobs.values())
        return (self._spent + ran * self._rules.gpus_per_job) / 3600

    @property
    def max_gpu_hours(self) -> float | None:
        """GPU-hours that all jobs together may use; None: no limit."""
        limit = self._rules.max_gpu_seconds
        return None if limit is None else limit / 3600

    async def start(self) -> None:
        """Submit the first jobs.

        Raises
        ------
        CommandError : Slurm's commands are missing; it rejects the first job.
        """
        steps = plan_scaling(self._rules, ClusterState())
        if not steps.submit:
            logger.warning("%s", self._exhausted())
        await self._submit(steps.submit[:1])
        try:
            await self._submit(steps.submit[1:])
        except CommandError as error:  # such as a limit on jobs: use those that were submitted
            self._failed(f"Slurm rejected a job: {error}")
        self._cluster.scheduler.extensions[SUPPLY] = self
        self._cluster.scheduler.add_plugin(_WorkerArrivals(self._worker_arrived))
        check = PeriodicCallback(self._tick, WORKER_CHECK_SECONDS * 1000)
        self._cluster.periodic_callbacks["daskhpo-autoscaler"] = check
        check.start()

    def _worker_arrived(self, name: str) -> None:
        """Record that a job has a worker, which may leave before the next check."""
        job = self._jobs.get(name)
        if job is not None and not job.connected:
            now = time.monotonic()
            job.connected, job.state, job.busy = True, JobPhase.RUNNING, now
            job.sightings = replace(job.sightings, seen=now, absences=0)
            self._n_failures, self._not_before, self._trouble = 0, 0.0, ""

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
        self._asked = time.monotonic()
        known = list(self._jobs.values())
        try:
            listed, described = await in_thread(_look, [job.id for job in known])
        except CommandError as error:  # it may be unavailable for a while
            logger.info("the jobs could not be listed: %s", error)
            self._trouble = f"Slurm does not answer: {error}".splitlines()[0]
            return
        now = time.monotonic()
        for job in known:
            verdict, job.sightings = judge(
                job.sightings,
                listed.get(job.id),
                described.get(job.id),
                now,
                connected=job.has_workers,
                requeues=self._requeues,
            )
            match verdict:
                case JobPending(reason):
                    self._waits(job, reason)
                case JobRunning(seconds_left):
                    job.state, job.reason = JobPhase.RUNNING, ""
                    if seconds_left is not None:
                        job.ran = max(0.0, job.walltime - seconds_left)
                case JobEnded(state):
                    self._registry.forget(job.id)
                    self._is_over(job, now, f"ended ({state})")
                case JobLost():
                    if await self._registry.cancel(job.id):
                        self._is_over(job, now, "is no longer in Slurm's queue")
                case JobUnseen():
                    logger.debug("Slurm does not show job %s", job.id)
        await self._registry.cancel_late()
        await self._observe_start(now)

    async def _observe_start(self, now: float) -> None:
        """Ask Slurm when a job will start, if none has yet."""
        waiting = self._waiting()
        if not waiting or len(waiting) < len(self._jobs):
            self._starts = ""
        elif now - self._asked_start >= START_SECONDS:
            self._asked_start = now
            try:
                start = await in_thread(jobs.expected_start, waiting[0].id)
            except CommandError as error:
                logger.info("the start of job %s is not known: %s", waiting[0].id, error)
            else:
                self._starts = start or ""

    def _waits(self, job: _TrackedJob, reason: str) -> None:
        """Record that a job is pending, possibly again after Slurm has put it back."""
        self._spent += job.ran * self._rules.gpus_per_job
        job.state, job.reason, job.ran = JobPhase.PENDING, reason, 0.0

    def _is_over(self, job: _TrackedJob, now: float, how: str) -> None:
        if self._jobs.get(job.name) is not job:  # forgotten meanwhile
            return
        # It may have run all of the time since it was last seen: count that.
        since = job.sightings.submitted if job.sightings.seen is None else job.sightings.seen
        ran = min(job.walltime, job.ran + now - since)
        self._spent += ran * self._rules.gpus_per_job
        self._forget(job.name)
        if not job.connected and not job.retiring:
            self._failed(f"job {job.id} {how} before its workers connected: {self._log(job)}")
        elif not job.retiring:
            logger.info("worker job %s %s", job.id, how)

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
            logger.info("worker job %s is idle: its workers are retired", self._jobs[name].id)
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
            except CommandError as error:
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
        except Exception as error:  # Dask may wrap it
            problem = error
        now = time.monotonic()
        for name, walltime in added.items():
            job = cluster.workers.get(name)
            if job is not None and job.job_id is not None:
                self._jobs[name] = _TrackedJob(name, job.job_id, walltime, Sightings(now))
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
        self._trouble = what.splitlines()[0]
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
        number, _ = split_job_id(job.id)
        found = sorted(self._log_directory.glob(f"*-{number}.log"))
        if not found:
            return f"no log was found in {self._log_directory}"
        lines = found[-1].read_text(errors="replace").splitlines()
        return "\n".join([f"{found[-1]}:", *lines[-LOG_LINES:]])


def _look(known: Sequence[str]) -> tuple[dict[str, SlurmJob], dict[str, list[SlurmJob]]]:
    """Ask ``squeue`` for jobs, and ``scontrol`` for those that it does not show."""
    listed = dict(jobs.list_jobs(known))
    described = {}
    for job in [job for job in known if job not in listed][:MAX_DESCRIBED]:
        if (found := jobs.described(job)) is not None:
            described[job] = found
    return listed, described
