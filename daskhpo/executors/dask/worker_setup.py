"""Dask preload of the embedded cluster's workers."""

from __future__ import annotations

import signal
import threading
from typing import Any

from daskhpo.executors.dask.output import send_output


def dask_setup(worker: Any) -> None:
    """Set up a worker process; Dask calls this before the worker takes tasks."""
    ignore_sigint()
    send_output()


def configured_preload() -> list[str]:
    """Return what Dask's configuration lets workers load first."""
    import dask

    given = dask.config.get("distributed.worker.preload", None) or []
    return [given] if isinstance(given, str) else list(given)


def ignore_sigint() -> None:
    """Ignore SIGINT: Ctrl-C in the terminal must only reach the study's own process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
