"""One process at a time runs a study: a lock file that also holds on network file systems."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import create_file
from daskhpo.core.errors import StudyLocked

logger = logging.getLogger("daskhpo")

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
SILENT_SECONDS = 15.0  # without a sign of life, if the batch job of the holder is over

JobIsOver = Callable[[str], bool]
"""Whether a batch job is over; it is named as a lock names it: number, dot, how often restarted."""


def no_job_is_over(job: str) -> bool:
    """What somebody says who knows nothing of batch jobs."""
    return False


class StudyLock:
    """Holds ``lock.json`` in a study directory.

    Creation with ``O_EXCL`` is atomic, on NFS too. The holder touches the file every
    ``HEARTBEAT_SECONDS``; a file that was not touched for ``STALE_SECONDS`` belongs to a dead
    process, and so does one of this host whose process is gone, and one whose batch job is over,
    as soon as it was not touched for ``SILENT_SECONDS``: the word of a batch system alone is not
    enough, for a process may survive its job. Ages are measured by the file server's own clock.
    Whoever takes a lock over claims that first, which only one can do.

    Parameters
    ----------
    directory : of the study; it exists.
    on_lost : called (from the heartbeat's thread) if somebody took the lock over.
    job_is_over : asked about the batch job of a silent holder.

    Attributes
    ----------
    token : name of this session.

    Raises
    ------
    StudyLocked : another process holds it; the message says which.
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
        """Give the lock back."""
        self._released.set()
        self._thread.join()
        if self._is_mine():
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _create(self, path: Path) -> bool:
        """Write who we are to a file, unless there is one already."""
        holder = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _started(os.getpid()),
            "job": _own_job(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        return create_file(path, json.dumps(holder))

    def _take_over(self) -> None:
        """Remove the lock of a process that is gone; returns when it may be tried for again."""
        if (
            holder := _dead_holder(self.path.parent, self._job_is_over)
        ) is None:  # given back just now
            return
        host, pid = holder.get("host", "an unknown host"), holder.get("pid", 0)
        # Only the owner of this file may remove that holder's lock. Without it, another one could
        # take over after we looked, and it would be the new lock that we remove.
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
        """Another process is taking the lock over, which takes it milliseconds."""
        claimant, age = _read(claim), _age(claim)
        if claimant is None or age is None:
            return
        if _is_gone(claimant) or age >= STALE_SECONDS:  # it died over it
            claim.unlink(missing_ok=True)
        else:
            time.sleep(0.01)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            if not self._is_mine():
                if self._on_lost is not None:
                    self._on_lost()
                return
            with contextlib.suppress(OSError):  # a file server may be away for a while
                os.utime(self.path)

    def _is_mine(self) -> bool:
        try:
            return bool(json.loads(self.path.read_text()).get("token") == self.token)
        except FileNotFoundError:
            return False
        except (OSError, ValueError):  # not readable just now: assume nothing
            return True


def holder_of(directory: Path, job_is_over: JobIsOver = no_job_is_over) -> dict[str, Any] | None:
    """Who runs the study in a directory; None if nobody does.

    Returns
    -------
    dict : token, host, pid, since, job (None outside of one), age (s).
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
    """Refuse a study that a living process runs.

    Raises
    ------
    StudyLocked : the message says which process, and what to do.
    """
    _dead_holder(directory, job_is_over)


def _dead_holder(directory: Path, job_is_over: JobIsOver) -> dict[str, Any] | None:
    """Who left a lock behind; None if there is no lock. Raises if the holder is alive."""
    path = directory / "lock.json"
    holder, age = _read(path), _age(path)  # judged and taken over from must be one and the same
    if holder is None or age is None:
        return None
    if _is_dead(holder, age, job_is_over):
        return holder
    raise StudyLocked(
        f"{directory} is in use by process {holder.get('pid', 'unknown')} on "
        f"{holder.get('host', 'an unknown host')} since {holder.get('since', 'some time')} "
        f"(sign of life {age:.0f} s ago). Stop that one, or wait: the lock expires "
        f"{STALE_SECONDS:.0f} s after its last sign of life"
    )


def _age(path: Path) -> float | None:
    """Seconds since a file was touched, by the clock that stamps files in its directory."""
    probe = path.with_name(f"lock.probe.{uuid.uuid4().hex}")
    try:
        touched = path.stat().st_mtime
        probe.touch()
        return probe.stat().st_mtime - touched
    except FileNotFoundError:
        return None
    except OSError:  # somebody else's study, or a read-only disk: our own clock must do
        return time.time() - touched
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock file says; None if there is none, empty if it cannot be understood."""
    try:
        holder = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_dead(holder: dict[str, Any], age: float, job_is_over: JobIsOver) -> bool:
    if _is_gone(holder) or age >= STALE_SECONDS:
        return True
    job = holder.get("job")
    return isinstance(job, str) and age >= SILENT_SECONDS and job_is_over(job)


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this host which is no more."""
    if holder.get("host") != socket.gethostname():
        return False
    started = _started(holder.get("pid", 0))
    return started is None or started != holder.get("process_started")


def _own_job() -> str | None:
    """The Slurm job that this process belongs to; it keeps its number when it is restarted."""
    number = os.environ.get("SLURM_JOB_ID")
    return number and f"{number}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def _started(pid: int) -> str | None:
    """When a process of this host began, in the kernel's own unit; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, ValueError, OverflowError):
            return None
        except PermissionError:
            pass
        return "running"  # a system without /proc
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]  # a zombie is no more
