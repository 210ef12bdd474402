"""Dask preload of the embedded cluster's workers."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

from daskhpo.executors.dask.output import send_output


def dask_setup(worker: Any) -> None:
    """Set up a worker process; Dask calls this before the worker takes tasks."""
    ignore_sigint()
    send_output()
    close_pages(worker)
    keep_end_quiet(worker)


def configured_preload() -> list[str]:
    """Return what Dask's configuration lets workers load first."""
    import dask

    given = dask.config.get("distributed.worker.preload", None) or []
    return [given] if isinstance(given, str) else list(given)


def ignore_sigint() -> None:
    """Ignore SIGINT: Ctrl-C in the terminal must only reach the study's own process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def close_pages(worker: Any) -> None:
    """Stop a worker's HTTP server, which asks for no token.

    The scheduler has the pages of all workers.
    """
    server = getattr(worker, "http_server", None)
    if server is not None:
        server.stop()


def keep_end_quiet(worker: Any) -> None:
    """Keep back what Dask logs while the worker closes, such as cancelled tasks."""

    def is_open(record: logging.LogRecord) -> bool:
        return worker.status.name not in ("closing", "closing_gracefully", "closed")

    for handler in logging.getLogger("distributed").handlers:
        handler.addFilter(is_open)
