"""The embedded cluster: worker processes on this machine, one per slot.

Every user of a machine can connect to its ports, and a process that a Dask scheduler or worker
serves can run code there. So connections need the certificate of this cluster, and pages need its
token.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from daskhpo.cluster.gpus import NO_SOURCE, Gpus, visible_gpus
from daskhpo.cluster.guard import guard_pages
from daskhpo.cluster.security import credentials_in_memory, private_folder
from daskhpo.core.errors import NoSuitableWorkers
from daskhpo.core.resource_names import hint
from daskhpo.dashboard.server import announce
from daskhpo.executors.dask.interrupts import completed
from daskhpo.executors.dask.main_module import check_main_guard, hidden_main
from daskhpo.executors.dask.threads import THREAD_VARIABLES
from daskhpo.executors.dask.worker_setup import configured_preload

LOOPBACK = "127.0.0.1"
OTHER_RESOURCES = "pass a Dask cluster whose workers offer it as client="


@contextlib.contextmanager
def local_cluster(
    resources: dict[str, float],
    max_concurrent: int | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Any]:
    """Yield a Dask ``LocalCluster`` with as many one-slot workers as fit this machine.

    A trial's ``cpu`` is also the number of threads that BLAS, OpenMP and torch start in its worker.
    With ``gpu`` in the resources each worker sees only its own device (``CUDA_VISIBLE_DEVICES``, or
    its like); a fraction puts several workers on a device. Ctrl-C does not reach the workers. While
    they start or end, it kills them.

    Parameters
    ----------
    resources : what one trial needs.
    max_concurrent : maximum number of workers; None: as many as fit.
    variables : environment variables of the workers.

    Raises
    ------
    RuntimeError : worker processes would run the user's script again, see `check_main_guard`.
    NoSuitableWorkers : this machine has too few CPUs or GPUs for a single trial, or the resources
        name something else.
    """
    check_main_guard()
    announce()
    variables_of_slots = [
        {**variables, **share} for share in _shares_of_slots(resources, max_concurrent)
    ]
    cluster = _EmbeddedCluster()
    with hidden_main():
        try:
            completed(lambda: cluster.start(resources, variables_of_slots), cluster.kill)
            yield cluster.dask
        finally:
            if sys.is_finalizing():  # a script ended without waiting for its study
                cluster.kill()  # Dask has closed the rest; no thread can start now
            else:
                completed(cluster.close, cluster.kill)


def _shares_of_slots(
    resources: Mapping[str, float], max_concurrent: int | None
) -> list[dict[str, str]]:
    """Return the variables by which each slot sees only its own GPUs."""
    cpus, gpus = resources.get("cpu", 1), resources.get("gpu", 0)
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    n_slots = int((n_cpus or 1) // max(cpus, 1))
    found = visible_gpus() if gpus else Gpus()
    shares: list[dict[str, str]] = [{}] * n_slots
    if gpus > 1:
        n = int(gpus)
        firsts = range(0, len(found.names) - n + 1, n)
        shares = [found.environment(found.names[i : i + n]) for i in firsts]
    elif gpus:
        each = int(1 / gpus)
        shares = [found.environment([name]) for name in found.names for _ in range(each)]
    shares = shares[: min(n_slots, max_concurrent or n_slots)]
    if extra := [name for name in resources if name not in ("cpu", "gpu")]:
        raise NoSuitableWorkers(
            f"resources={resources}: worker processes on this machine offer cpu and gpu, and no "
            f"{extra[0]!r}; {hint(extra) or OTHER_RESOURCES}"
        )
    if not shares:
        raise NoSuitableWorkers(
            f"resources={resources} do not fit this machine, which has {n_cpus} CPUs"
            + (f" and {len(found.names)} GPUs ({found.source or NO_SOURCE})" if gpus else "")
            + "; request less, or pass a Dask cluster that has them as client="
        )
    return shares


class _EmbeddedCluster:
    """A Dask cluster that starts, ends and is killed as a whole.

    Attributes
    ----------
    dask : the ``LocalCluster``; None before it has started.
    """

    def __init__(self) -> None:
        self.dask: Any = None
        self._nannies: list[Any] = []
        self._quiet = contextlib.ExitStack()

    def start(
        self,
        resources: Mapping[str, float],
        variables_of_slots: list[dict[str, str]],
    ) -> None:
        """Start the scheduler in this process, then a worker process for each slot."""
        import dask
        from distributed import LocalCluster
        from distributed.system import MEMORY_LIMIT

        threads, gpus = max(1, int(resources.get("cpu", 1))), resources.get("gpu", 0)
        env = dict.fromkeys(THREAD_VARIABLES, str(threads))  # Dask would set 1
        security = credentials_in_memory()
        folder = str(private_folder(dask.config.get("temporary-directory", None)))
        self.dask = LocalCluster(
            n_workers=0,
            threads_per_worker=threads,
            host=LOOPBACK,
            security=security,
            dashboard_address=f"{LOOPBACK}:0",
            scheduler_kwargs={"local_directory": folder},
        )
        guard_pages(self.dask.scheduler)
        for slot, variables in enumerate(variables_of_slots):
            options: dict[str, Any] = {
                "nthreads": threads,
                "host": LOOPBACK,
                "security": security,
                "dashboard": False,
                "local_directory": folder,
                "memory_limit": MEMORY_LIMIT // len(variables_of_slots),
                "silence_logs": logging.WARNING,
                "preload": [*configured_preload(), "daskhpo.executors.dask.worker_setup"],
                "env": env | variables,
            }
            if gpus:
                options["resources"] = {"GPU": gpus if gpus <= 1 else int(gpus)}
            self.dask.worker_spec[slot] = {"cls": self._nanny, "options": options}
        self.dask.sync(self.dask._correct_state)

    def _nanny(self, scheduler: str, **options: Any) -> Any:
        from distributed import Nanny

        self._nannies.append(Nanny(scheduler, **options))
        return self._nannies[-1]

    def close(self) -> None:
        """End all processes; those that take long, such as ones with torch, are killed."""
        self._be_quiet()
        with self._quiet:
            if self.dask is not None:
                self.dask.close()

    def kill(self) -> None:
        """Kill the worker processes, so that a start or an end soon returns."""
        self._be_quiet()
        for nanny in list(self._nannies):
            if (process := nanny.pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _be_quiet(self) -> None:
        """Keep back what Dask logs, from now until the end of `close`.

        The study is over: its tasks and processes are no longer needed.
        """
        for handler in logging.getLogger("distributed").handlers:
            if _keep_back not in handler.filters:
                handler.addFilter(_keep_back)
                self._quiet.callback(handler.removeFilter, _keep_back)


def _keep_back(record: logging.LogRecord) -> bool:
    return False
