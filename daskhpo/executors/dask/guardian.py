"""Guardian of a worker process: when that is killed, its children end, too.

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
CHECK_PROCESS_SECONDS = 1.0  # where the kernel cannot tell of the end of a process


def start_of(pid: int) -> str:
    """Return the start time of a process in clock ticks; "": it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def wait_for(pid: int, start: str) -> None:
    """Wait for the end of a process."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):  # Linux before 5.3; or it has ended
        handle = None
    if handle is not None and start_of(pid) == start:
        select.select([handle], [], [])
    while start_of(pid) == start:
        time.sleep(CHECK_PROCESS_SECONDS)


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
