"""Processes that trials start: none outlives its trial, or its worker."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from daskhpo.executors.dask import guardian

logger = logging.getLogger("daskhpo.worker")

TERMINATE_SECONDS = 1.0  # for processes to end on SIGTERM, before they are killed
MAX_ROUNDS = 4
KILL_SECONDS = 5.0  # for the kernel to end them
HELPERS = (  # module, object in it, and where that has the number of its process
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)
PR_SET_CHILD_SUBREAPER = 36  # Linux: orphans among its descendants become its children


def allow_children() -> None:
    """Let trials start processes, such as those of torch's DataLoader.

    A nanny starts its worker as a daemon, to which multiprocessing forbids that. The flag is only
    read in the worker itself; the nanny ends the worker all the same.
    """
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


class ChildProcesses:
    """The processes that trials in this process have started, and their own.

    Parameters
    ----------
    is_own : True: this process serves only trials, so that all its children are theirs.
    """

    def __init__(self, is_own: bool) -> None:
        self.is_own = is_own

    def end(self) -> int:
        """End all of them, and return how many there were.

        They get SIGTERM, and SIGKILL after `TERMINATE_SECONDS`. Without any this takes a
        microsecond.
        """
        n = 0
        for _ in range(MAX_ROUNDS):  # one that ends may have started another meanwhile
            if not self.is_own or not _has_children() or not (found := _descendants()):
                break
            n += len(found)
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.terminate()
            alive = _await(found, TERMINATE_SECONDS)
            for process in alive:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if left := _await(alive, KILL_SECONDS):
                logger.warning("processes of a trial do not end: %s", [p.pid for p in left])
        return n

    def end_process(self, reason: str) -> None:
        """End this process at once, if it serves only trials; its nanny replaces it."""
        logger.error("this process ends: %s", reason)
        if self.is_own:
            os._exit(1)  # its guardian ends what the trial has started

    def n_bytes(self) -> int:
        """Return the resident memory of this process and its children."""
        others = _descendants() if self.is_own and _has_children() else ()
        processes = [psutil.Process(), *others]
        n_bytes = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):
                n_bytes += process.memory_info().rss
        return n_bytes


@cache
def child_processes(is_own: bool) -> ChildProcesses:
    """Return the children of this process; from the first call, none outlives it.

    Parameters
    ----------
    is_own : True: this process serves only trials, as the worker of a nanny does.
    """
    if is_own and sys.platform == "linux":
        _lead_group()
    return ChildProcesses(is_own)


def _lead_group() -> None:
    """Make this process the leader of its group, with a guardian, and adopt orphans."""
    with contextlib.suppress(PermissionError):  # it leads a session, and so its group
        os.setpgid(0, 0)
    marker = os.environ[guardian.MARKER_VARIABLE] = uuid.uuid4().hex
    pid = os.getpid()
    argv = [sys.executable, "-S", "-E", "-I", str(Path(guardian.__file__)), str(pid)]
    argv += [guardian.start_of(pid), marker]
    environ = {
        name: value for name, value in os.environ.items() if name != guardian.MARKER_VARIABLE
    }
    try:
        # by a shell that ends at once, so that the guardian is no child of this process
        subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *argv],
            env=environ,
            start_new_session=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("processes of a trial may outlive a worker that is killed: %s", error)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _has_children() -> bool:
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _descendants() -> list[psutil.Process]:
    helpers = _helpers()
    try:
        found = psutil.Process().children(recursive=True)
    except psutil.Error:
        return []
    return [process for process in found if process.pid not in helpers]


def _helpers() -> set[Any]:
    """Return processes of libraries, such as trackers, which serve all trials."""
    found = set()
    for module, name, attribute in HELPERS:
        holder = getattr(sys.modules.get(module), name, None)
        found.add(getattr(holder, attribute, None))
    return found


def _await(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end, and return those that have not."""
    deadline = time.monotonic() + seconds
    for child in multiprocessing.active_children():  # else it would not see their ends
        child.join(max(0.0, deadline - time.monotonic()))
    alive: list[psutil.Process]
    _, alive = psutil.wait_procs(list(processes), max(0.0, deadline - time.monotonic()))
    return alive
