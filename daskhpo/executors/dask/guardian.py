"""Guardian of a worker process: when that is killed, its children end, too.

A worker that is stopped (SIGSTOP) is killed: it would hold its trial and its GPU, and Dask notices
the silence of a worker after minutes.

A worker may be killed, by the kernel for instance, and cannot end what its trial has started.
This program is started beside it: ``python -S -E -I guardian.py PID START MARKER``.
"""

import os
import select
import signal
import sys
import time
from pathlib import Path

MARKER_VARIABLE = "DASKHPO_WORKER"  # of all programs that a worker starts: its marker
CHECK_PROCESS_SECONDS = 2.0
STOPPED_SECONDS = 20.0  # Ctrl-Z and a debugger are shorter, or are meant


def start_of(pid: int) -> str:
    """Return the start time of a process in clock ticks; "": it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def state_of(pid: int) -> str:
    """Return the state of a process as Linux names it; "T": it is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_for(pid: int, start: str, patience: float = STOPPED_SECONDS) -> None:
    """Wait for the end of a process; kill it if it is stopped for `patience` seconds."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):  # Linux before 5.3; or it has ended
        handle = None
    stopped = 0.0
    while start_of(pid) == start:
        if handle is not None:
            select.select([handle], [], [], CHECK_PROCESS_SECONDS)
        else:
            time.sleep(CHECK_PROCESS_SECONDS)
        stopped = stopped + CHECK_PROCESS_SECONDS if state_of(pid) == "T" else 0.0
        if stopped >= patience and start_of(pid) == start:
            os.kill(pid, signal.SIGKILL)


def end_group(group: int, marker: str) -> None:
    """Kill a group of processes, and programs that have left it but have the marker."""
    wanted = f"{MARKER_VARIABLE}={marker}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:  # it has ended, or is another user's
            continue
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        return


def main(pid: int, start: str, marker: str) -> None:
    """Wait for the end of a process, which leads its group, and end its children."""
    wait_for(pid, start)
    end_group(pid, marker)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
