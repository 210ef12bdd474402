"""A study's demand for workers, in Dask's own words: tasks that wait for a worker.

Dask counts tasks. A scheduler without any closes after ``idle-timeout``; adaptive scaling starts as
many workers as have tasks. A lease is a task only once its worker is there. Each worker that a
study lacks is therefore a task, too, with a Dask resource that no worker offers: it never runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

WAITING = "daskhpo-waiting"  # first part of the tasks' keys; dashboards show it
TASK_SECONDS = 86400.0  # expected run time: far more than any `adapt(target_duration=)`
MOST_WORKERS = 100  # asked for at a time; as they come, the study asks for more
MOST_TASKS = 1000


def n_waiting_tasks(missing: float, held: int, n_workers: int, n_threads: int) -> int:
    """Return the number of tasks for which Dask wants ``held + missing`` workers.

    Dask wants a thread for each task, and divides by the mean number of a worker's threads.

    Parameters
    ----------
    missing : workers that the study could fill and does not have; infinite: any number.
    held : its leases, each of which is a task that runs.
    n_workers, n_threads : workers of the cluster, and threads of all of them.
    """
    missing = min(missing, MOST_WORKERS)
    if missing <= 0:
        return 0
    threads = n_threads / n_workers if n_workers else 1.0
    return min(max(1, math.floor((held + missing) * threads) - held), MOST_TASKS)


class Demand:
    """The waiting tasks of one study; used in the scheduler's event loop.

    Parameters
    ----------
    scheduler : Dask's scheduler.
    client : an asynchronous client of it.
    study : unique name of the session.
    """

    def __init__(self, scheduler: Any, client: Any, study: str) -> None:
        self._scheduler, self._client, self._study = scheduler, client, study
        self._tasks: list[Any] = []  # futures
        self._n_made = 0
        self._made_at = 0.0
        self._is_closed = False

    def set(self, missing: float, held: int, now: float) -> None:
        """Ask Dask for ``missing`` more workers than the ``held`` ones."""
        if self._is_closed:
            return
        workers = self._scheduler.workers
        n_threads = sum(worker.nthreads for worker in workers.values())
        n_tasks = n_waiting_tasks(missing, held, len(workers), n_threads)
        tasks = [task for task in self._tasks if not task.done()]  # done: cancelled, or timed out
        if tasks and self._must_renew(now):
            tasks.clear()
        del tasks[n_tasks:]
        if n := n_tasks - len(tasks):
            keys = [(WAITING, self._study, self._n_made + i) for i in range(n)]
            self._n_made += n
            self._made_at = now if not tasks else self._made_at
            resources = {f"a worker for {self._study}": 1}
            tasks += self._client.map(_never, keys, key=keys, resources=resources, pure=False)
        kept = set(map(id, tasks))
        for task in self._tasks:
            if id(task) not in kept:
                task.release()
        self._tasks = tasks
        if (kind := self._scheduler.task_prefixes.get(WAITING)) is not None:
            kind.duration_average = TASK_SECONDS

    def close(self) -> None:
        """Ask for nothing more."""
        self._is_closed = True
        for task in self._tasks:
            task.release()
        self._tasks = []

    def _must_renew(self, now: float) -> bool:
        """True before Dask's ``no-workers-timeout``, which would make the tasks errors."""
        limit = getattr(self._scheduler, "no_workers_timeout", None)
        return limit is not None and now - self._made_at > limit / 2


def _never(key: Any) -> None:
    raise AssertionError(f"{key} needs a resource that no worker offers")


def is_adaptive(scheduler: Any) -> bool:
    """Return True if something that scales the cluster asked for its target lately."""
    calls = scheduler.counters["op"].components[0]  # lose a fifth every five seconds
    return bool(calls.get("adaptive_target", 0) > 0.01)


def removable(
    candidates: list[Any], workers: Iterable[Any], is_held: Callable[[str], bool]
) -> list[Any]:
    """Return the candidates that no study needs; pure.

    The workers of one job of a job queue end together: one that is needed keeps all of them.

    Parameters
    ----------
    candidates, workers : workers that may be closed, and all: their states on the scheduler.
    is_held : returns True for the address of a worker with a lease.
    """
    needed = {_job_of(worker) for worker in workers if is_held(worker.address)} - {None}
    return [
        worker
        for worker in candidates
        if not is_held(worker.address) and _job_of(worker) not in needed
    ]


def _job_of(worker: Any) -> str | None:
    """Return the job of a worker named ``"<cluster>-<job>-<process>"``; else None."""
    found = re.fullmatch(r"(.*-\d+)-\d+", str(worker.name))
    return found and found[1]
