"""A study's lock: a file, safe on network file systems, that one process holds."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import create_file, read_small
from daskhpo.core.errors import StudyLocked

logger = logging.getLogger("daskhpo")

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
RUNNING = "running"
SILENT_SECONDS = 15.0  # without a heartbeat, if the holder's Slurm job has ended

JobIsOver = Callable[[str], bool]
"""True if the Slurm job with this name has ended. A lock names it ``"<id>.<restart count>"``."""


def no_job_is_over(job: str) -> bool:
    """Assume that no job has ended."""
    return False


class StudyLock:
    """The lock of a study: the file ``lock.json`` in its directory.

    Its creation is atomic, also on NFS (see `create_file`). The holder touches the file every
    ``HEARTBEAT_SECONDS``. A lock is stale if one of these holds:

    - The file was not touched for ``STALE_SECONDS``.
    - Its process ran on this machine, under the same kernel and in the same PID namespace, and has
      exited. A host's name does not identify it: containers and clones have the same.
    - Its Slurm job has ended and the file was not touched for ``SILENT_SECONDS``. The age is
      needed because a process can outlive its job.

    Ages are measured by the file server's clock. A takeover is serialised by an exclusive claim
    file.

    Parameters
    ----------
    directory : the study's directory; must exist.
    on_lost : called in the heartbeat's thread if another process took the lock over; None: no
        call.
    job_is_over : called with the Slurm job of a holder without heartbeat.

    Attributes
    ----------
    token : unique name of this session.

    Raises
    ------
    StudyLocked : another process holds the lock; the message names it.
    """

    def __init__(
        self,
        directory: Path,
        on_lost: Callable[[], None] | None = None,
        job_is_over: JobIsOver = no_job_is_over,
    ) -> None:
        self.path = directory / "lock.json"
        self.token = uuid.uuid4().hex
        self._on_lost = on_lost
        self._job_is_over = job_is_over
        while not self._create(self.path):
            self._take_over()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="daskhpo-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Release the lock."""
        self._released.set()
        self._thread.join()
        if self.is_mine():
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _create(self, path: Path) -> bool:
        """Create a file that identifies this process; return False if it exists."""
        holder = {
            "token": self.token,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "process_started": _started(os.getpid()),
            "job": _own_job(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        return create_file(path, json.dumps(holder))

    def _take_over(self) -> None:
        """Remove a stale lock; return when its creation may be tried again."""
        if (holder := _dead_holder(self.path.parent, self._job_is_over)) is None:  # just released
            return
        host, pid = holder.get("host", "an unknown host"), holder.get("pid", 0)
        # Only the owner of the claim file may remove this holder's lock. Otherwise another process
        # could take over after the check above, and its new lock would be removed here.
        claim = self.path.with_name(f"lock.after.{holder.get('token')}")
        if not self._create(claim):
            self._await(claim)
            return
        try:
            if (now := _read(self.path)) is not None and now.get("token") == holder.get("token"):
                logger.warning("taking over %s: process %s on %s is gone", claim.parent, pid, host)
                self.path.unlink()
        finally:
            claim.unlink(missing_ok=True)

    def _await(self, claim: Path) -> None:
        """Wait for a process that is taking the lock over; that takes milliseconds."""
        claimant, age = _read(claim), _age(claim)
        if claimant is None or age is None:
            return
        if _is_gone(claimant) or age >= STALE_SECONDS:  # it died during the takeover
            claim.unlink(missing_ok=True)
        else:
            time.sleep(0.01)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            if not self.is_mine():
                if self._on_lost is not None:
                    self._on_lost()
                return
            with contextlib.suppress(OSError):  # a file server may be unreachable for a while
                os.utime(self.path)

    def is_mine(self) -> bool:
        """Return True unless the lock was certainly lost."""
        try:
            return bool(json.loads(read_small(self.path)).get("token") == self.token)
        except FileNotFoundError:
            return False
        except (
            OSError,
            ValueError,
            AttributeError,
            RecursionError,
        ):  # unreadable at the moment: assume that it is still ours
            return True


def holder_of(directory: Path, job_is_over: JobIsOver = no_job_is_over) -> dict[str, Any] | None:
    """Return the process that runs the study in a directory, or None.

    Returns
    -------
    dict : token, host, pid, since, job (None: not in a Slurm job), age (seconds since the last
        heartbeat).
    """
    path = directory / "lock.json"
    holder, age = _read(path), _age(path)
    if holder is None or age is None or _is_dead(holder, age, job_is_over):
        return None
    unknown = {
        "token": "",
        "host": "an unknown host",
        "pid": "?",
        "since": "an unknown time",
        "job": None,
    }
    return unknown | holder | {"age": age}


def check_free(directory: Path, job_is_over: JobIsOver = no_job_is_over) -> None:
    """Check that no living process runs the study.

    Raises
    ------
    StudyLocked : a process runs it; the message names the process and says what to do.
    """
    _dead_holder(directory, job_is_over)


def _dead_holder(directory: Path, job_is_over: JobIsOver) -> dict[str, Any] | None:
    """Return the holder of a stale lock; None: no lock. Raise if the holder is alive."""
    path = directory / "lock.json"
    holder, age = _read(path), _age(path)  # the holder judged here is the one to take over from
    if holder is None or age is None:
        return None
    if _is_dead(holder, age, job_is_over):
        return holder
    raise StudyLocked(
        f"{directory} is in use by process {holder.get('pid', 'unknown')} on "
        f"{holder.get('host', 'an unknown host')} since {holder.get('since', 'some time')} "
        f"(last heartbeat {age:.0f} s ago). Stop that process, or wait: the lock expires "
        f"{STALE_SECONDS:.0f} s after its last heartbeat"
    )


def _age(path: Path) -> float | None:
    """Return the seconds since a file was touched, by its file server's clock."""
    probe = path.with_name(f"lock.probe.{uuid.uuid4().hex}")
    try:
        touched = path.stat().st_mtime
        probe.touch()
        return probe.stat().st_mtime - touched
    except FileNotFoundError:
        return None
    except OSError:  # another user's study, or a read-only disk: use the local clock
        return max(0.0, time.time() - touched)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a lock file; None if it is missing, {} if it is invalid."""
    try:
        holder = json.loads(read_small(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_dead(holder: dict[str, Any], age: float, job_is_over: JobIsOver) -> bool:
    if _is_gone(holder) or age >= STALE_SECONDS:
        return True
    job = holder.get("job")
    return isinstance(job, str) and age >= SILENT_SECONDS and job_is_over(job)


def _is_gone(holder: dict[str, Any]) -> bool:
    """Return True if the holder was a process of this machine and has exited.

    A lock of an earlier version does not say which machine; its heartbeat decides alone.
    """
    if (machine := _machine()) is None or holder.get("machine") != machine:
        return False
    if holder.get("host") != socket.gethostname():
        return False
    started, then = _started(holder.get("pid", 0)), holder.get("process_started")
    return started is None or (started != then and RUNNING not in (started, then))


def _machine() -> str | None:
    """Return a name of the space in which a process number is unique; None: not known.

    It consists of the boot of the kernel and the namespace of process numbers.
    """
    if not Path("/proc").exists():
        return sys.platform  # one space a host
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # /proc shows another namespace
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _own_job() -> str | None:
    """Return this process's Slurm job; a restarted job keeps its number."""
    number = os.environ.get("SLURM_JOB_ID")
    return number and f"{number}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def _started(pid: int) -> str | None:
    """Return the start time of a local process in clock ticks; None if it has exited.

    `RUNNING`: there is one, and it does not show when it started.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, ValueError, OverflowError):
            return None
        except PermissionError:
            pass
        return RUNNING  # a system without /proc, or another user's process that it hides
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]  # a zombie has exited
