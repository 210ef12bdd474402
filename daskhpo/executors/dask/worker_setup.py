"""Dask preload of the embedded cluster's workers."""

from __future__ import annotations

import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker process, before it takes tasks."""
    ignore_sigint()


def ignore_sigint() -> None:
    """Let Ctrl-C in the terminal reach the study's own process only."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
