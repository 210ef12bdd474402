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

from daskhpo.core.errors import StudyLocked

logger = logging.getLogger("daskhpo")

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class StudyLock:
    """Holds ``lock.json`` in a study directory.

    Creation with ``O_EXCL`` is atomic, on NFS too. The holder touches the file every
    ``HEARTBEAT_SECONDS``; a file that was not touched for ``STALE_SECONDS`` belongs to a dead
    process, and so does one of this host whose process is gone. Ages are measured by the file
    server's own clock. Whoever takes a lock over renames it first, which only one can do.

    Parameters
    ----------
    directory : of the study; it exists.
    on_lost : called (from the heartbeat's thread) if somebody took the lock over.

    Raises
    ------
    StudyLocked : another process holds it; the message says which.
    """

    def __init__(self, directory: Path, on_lost: Callable[[], None] | None = None) -> None:
        self.path = directory / "lock.json"
        self._token = uuid.uuid4().hex
        self._on_lost = on_lost
        while not self._create():
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

    def _create(self) -> bool:
        holder = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _started(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        # Written aside and linked: nobody ever sees a lock that does not say whose it is.
        aside = self.path.with_name(f"lock.{self._token}")
        aside.write_text(json.dumps(holder))
        try:
            os.link(aside, self.path)
        except FileExistsError:
            return False
        finally:
            aside.unlink()
        return True

    def _take_over(self) -> None:
        try:
            holder = json.loads(self.path.read_text())
            age = self._age()
        except FileNotFoundError:
            return
        except ValueError:
            holder, age = {}, self._age()
        host, pid = holder.get("host", "an unknown host"), holder.get("pid", 0)
        here = host == socket.gethostname()
        dead = here and _started(pid) != holder.get("process_started")
        if not dead and age < STALE_SECONDS:
            raise StudyLocked(
                f"{self.path.parent} is in use by process {pid} on {host} since "
                f"{holder.get('since')} (sign of life {age:.0f} s ago). Stop that one, or wait: "
                f"the lock expires {STALE_SECONDS:.0f} s after its last sign of life"
            )
        logger.warning("taking over %s: process %s on %s is gone", self.path.parent, pid, host)
        stale = self.path.with_name(f"lock.stale.{self._token}")
        with contextlib.suppress(FileNotFoundError):  # another one was faster; it has it now
            os.rename(self.path, stale)
            stale.unlink()

    def _age(self) -> float:
        """Seconds since the last heartbeat, by the clock that stamps files in this directory."""
        probe = self.path.with_name(f"lock.probe.{self._token}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self.path.stat().st_mtime
        finally:
            probe.unlink()

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
            return bool(json.loads(self.path.read_text()).get("token") == self._token)
        except FileNotFoundError:
            return False
        except (OSError, ValueError):  # not readable just now: assume nothing
            return True


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
    return stat.rpartition(")")[2].split()[19]
