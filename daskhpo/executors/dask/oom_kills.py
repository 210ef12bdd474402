"""Processes that the kernel killed for want of memory, as its counters show them.

The counter of a process's cgroup is that of its Slurm step, container or service; the machine's
counts all of them.

References
----------
Linux, *Control Group v2*, ``memory.events``; *cgroup v1*, ``memory.oom_control``; ``/proc/vmstat``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MACHINE = "/proc/vmstat"


def kill_counter(process: Path = Path("/proc/self"), root: Path = Path("/")) -> str:
    """Return the file that counts kills in a process's cgroup, or on the machine.

    Parameters
    ----------
    process : its folder in ``/proc``.
    root : where ``/sys`` and ``/proc`` are.
    """
    for path in _candidates(process, root / "sys/fs/cgroup"):
        if read_kills(str(path)) is not None:
            return str(path)
    return MACHINE


def read_kills(path: str) -> int | None:
    """Return the number of kills in a file; None: it has no such number."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts and counts[0].isdecimal() else None


def _candidates(process: Path, mount: Path) -> Iterator[Path]:
    """Yield files of a process's cgroup; version 2 has none at the root of a machine."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if controllers == "":
            for group in (mount / inside, mount / "unified" / inside):
                yield group / "memory.events"
        elif "memory" in controllers.split(","):
            if inside:
                yield mount / "memory" / inside / "memory.oom_control"
            yield mount / "memory" / "memory.oom_control"  # a container sees its own as the root
