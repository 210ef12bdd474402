"""The embedded cluster: worker processes on this machine, one per slot."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from daskhpo.cluster.gpus import NO_SOURCE, Gpus, visible_gpus
from daskhpo.core.errors import NoSuitableWorkers
from daskhpo.dashboard.server import announce
from daskhpo.executors.dask.threads import THREAD_VARIABLES
from daskhpo.executors.dask.worker_setup import configured_preload


def local_cluster(
    resources: dict[str, float],
    max_concurrent: int | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Start a Dask ``LocalCluster`` with as many one-slot workers as fit this machine.

    A trial's ``cpu`` is also the number of threads that BLAS, OpenMP and torch start in its worker.
    With ``gpu`` in the resources each worker sees only its own device (``CUDA_VISIBLE_DEVICES``, or
    its like); a fraction puts several workers on a device.

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
    from distributed import LocalCluster, Nanny, SpecCluster

    check_main_guard()
    announce()
    cpus, gpus = resources.get("cpu", 1), resources.get("gpu", 0)
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    n_slots = int((n_cpus or 1) // max(cpus, 1))
    found = visible_gpus() if gpus else Gpus()
    devices = list(found.names)
    if gpus:
        per_device = int(1 / gpus) if gpus <= 1 else 0
        n_devices_each = 1 if gpus <= 1 else int(gpus)
        n_slots = min(
            n_slots, len(devices) * per_device if per_device else len(devices) // n_devices_each
        )
    extra = [name for name in resources if name not in ("cpu", "gpu")]
    if n_slots < 1 or extra:
        raise NoSuitableWorkers(
            f"resources={resources} do not fit this machine, which has {n_cpus} CPUs"
            + (f" and {len(devices)} GPUs ({found.source or NO_SOURCE})" if gpus else "")
            + "; request less, or pass a Dask cluster that has them as client="
        )
    if max_concurrent is not None:
        n_slots = min(n_slots, max_concurrent)
    threads = max(1, int(cpus))
    env = dict.fromkeys(THREAD_VARIABLES, str(threads)) | dict(variables)  # Dask would set 1 thread
    preload = [*configured_preload(), "daskhpo.executors.dask.worker_setup"]
    if not gpus:
        return LocalCluster(
            n_workers=n_slots,
            threads_per_worker=threads,
            dashboard_address="127.0.0.1:0",
            preload=preload,
            env=env,
        )
    scheduler = LocalCluster(
        n_workers=0, threads_per_worker=threads, dashboard_address="127.0.0.1:0"
    )
    assert isinstance(scheduler, SpecCluster)
    share = gpus if gpus <= 1 else int(gpus)
    for slot in range(n_slots):
        if gpus <= 1:
            mine = [devices[slot // int(1 / gpus)]]
        else:
            mine = devices[slot * int(gpus) : (slot + 1) * int(gpus)]
        scheduler.worker_spec[slot] = {
            "cls": Nanny,
            "options": {
                "nthreads": threads,
                "resources": {"GPU": share},
                "env": env | found.environment(mine),
                "preload": preload,
            },
        }
    scheduler.sync(scheduler._correct_state)
    return scheduler


def check_main_guard() -> None:
    """Check that workers, which import the user's script, do not run it again.

    Raises
    ------
    RuntimeError : the script's call is not under ``if __name__ == "__main__":``.
    """
    import dask

    if dask.config.get("distributed.worker.multiprocessing-method", "spawn") == "fork":
        return
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None:  # a prompt, a notebook, `python -c`: workers have nothing to run again
        return
    frame = sys._getframe()
    while frame.f_code.co_name != "<module>" or frame.f_code.co_filename != path:
        if frame.f_back is None:  # called in another thread than the script's
            return
        frame = frame.f_back
    line = frame.f_lineno
    try:
        statements = ast.parse(Path(path).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return
    for statement in statements:
        if statement.lineno <= line <= (statement.end_lineno or line):
            if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
                return
            raise RuntimeError(
                f"{path}, line {line}, starts worker processes, each of which would run the script "
                'again: put the line under `if __name__ == "__main__":`'
            )
