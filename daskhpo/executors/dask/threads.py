"""Threads of a trial's libraries: as many as the CPUs that it asked for."""

from __future__ import annotations

import contextlib
import os
import sys

# BLAS, OpenMP and torch read them when they are loaded
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def set_threads(n: int) -> None:
    """Let libraries of this process start ``n`` threads, loaded or not."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(n)
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(n)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(n)
