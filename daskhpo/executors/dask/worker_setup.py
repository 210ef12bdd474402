"""Dask preload of the embedded cluster's workers."""

from __future__ import annotations

from typing import Any

from daskhpo.executors.dask.local import ignore_sigint


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker process, before it takes tasks."""
    ignore_sigint()
