"""Measurements that all systems share; needs only the standard library.

Each case runs in a separate process. Environment variables give the start time of the process and a
folder for notes of its workers. A case prints one line of JSON: names of measures to numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

UNITS = 27  # reports per trial, in cases with more than one
SINCE, FOLDER = "OVERHEAD_SINCE", "OVERHEAD_FOLDER"


def run_case(cases: dict[str, Callable[[], dict[str, float]]]) -> None:
    """Run the case that the command line names, and print its measurements."""
    if len(sys.argv) != 2 or sys.argv[1] not in cases:
        sys.exit(f"give one case of {', '.join(cases)}")
    os.environ.setdefault(SINCE, repr(time.time()))
    print(json.dumps(cases[sys.argv[1]]()), flush=True)


def folder() -> Path:
    """Return the folder for files of this case's processes; create it."""
    path = Path(os.environ.get(FOLDER, "."))
    path.mkdir(parents=True, exist_ok=True)
    return path


def steady_rate(times: Iterable[float]) -> float:
    """Return events per second, without the first fifth (start-up)."""
    ordered = sorted(times)
    skipped = len(ordered) // 5
    return (len(ordered) - 1 - skipped) / (ordered[-1] - ordered[skipped])


def note(kind: str, values: Sequence[float]) -> None:
    """Write numbers for the process that runs the case; called in workers."""
    name = f"{kind}-{os.getpid()}-{time.monotonic_ns()}"
    partial = folder() / f".{name}"
    partial.write_text(json.dumps(list(values)))
    partial.rename(folder() / name)


def notes(kind: str) -> list[float]:
    """Read all numbers of this kind that workers wrote."""
    found = []
    for path in folder().glob(f"{kind}-*"):
        found += json.loads(path.read_text())
    return found


def started_after() -> float:
    """Return the seconds from the start of the case's process to the first unit."""
    return min(notes("first")) - float(os.environ[SINCE])


def median_and_p99(seconds: Sequence[float]) -> tuple[float, float]:
    """Return median and 99th percentile, in the unit of the argument."""
    return statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]


def idle_memory(n_workers: int = 2, limit: float = 60.0) -> float:
    """Return the PSS (MB) of this process and its descendants.

    It waits until all workers sleep in a trial, for at most ``limit`` seconds.
    """
    end = time.monotonic() + limit
    while len(list(folder().glob("first-*"))) < n_workers:
        if time.monotonic() > end:
            raise TimeoutError(f"not all {n_workers} workers have started a trial in {limit:g} s")
        time.sleep(0.05)
    time.sleep(1.0)  # also count what starts late
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    tree, n_kilobytes = [os.getpid()], 0
    for pid in tree:
        tree += children.get(pid, [])
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            n_kilobytes += int(rollup.partition("\nPss:")[2].split()[0])
    return n_kilobytes / 1000


class Stopwatch:
    """A measurement of the times between units of trials, in a worker."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._left: float | None = None
        note("first", [time.time()])

    def new_trial(self) -> None:
        """Start another trial; the gap before its first unit does not count."""
        self._left = None

    def enter(self) -> None:
        """Record the start of a unit."""
        now = time.perf_counter()
        if self._left is not None:
            self.gaps.append(now - self._left)

    def leave(self) -> None:
        """Record the end of a unit."""
        self._left = time.perf_counter()
