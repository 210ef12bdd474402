"""What every system is measured with; needs the standard library only.

A case runs in a process of its own, is told by the environment when that process was started and
where its workers may leave notes, and prints one line of JSON: names of measures to numbers.
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

UNITS = 27  # reports of a trial, where it gives more than one
SINCE, FOLDER = "OVERHEAD_SINCE", "OVERHEAD_FOLDER"


def run_case(cases: dict[str, Callable[[], dict[str, float]]]) -> None:
    """Run the case that the command line names, and print what it measured."""
    if len(sys.argv) != 2 or sys.argv[1] not in cases:
        sys.exit(f"give one case of {', '.join(cases)}")
    os.environ.setdefault(SINCE, repr(time.time()))
    print(json.dumps(cases[sys.argv[1]]()), flush=True)


def folder() -> Path:
    """Where this case's processes may leave files."""
    path = Path(os.environ.get(FOLDER, "."))
    path.mkdir(parents=True, exist_ok=True)
    return path


def steady_rate(times: Iterable[float]) -> float:
    """Events per second after the first fifth of them: what start-up costs is another measure."""
    ordered = sorted(times)
    skipped = len(ordered) // 5
    return (len(ordered) - 1 - skipped) / (ordered[-1] - ordered[skipped])


def note(kind: str, values: Sequence[float]) -> None:
    """Leave numbers for the process that runs the case; called in workers."""
    name = f"{kind}-{os.getpid()}-{time.monotonic_ns()}"
    partial = folder() / f".{name}"
    partial.write_text(json.dumps(list(values)))
    partial.rename(folder() / name)


def notes(kind: str) -> list[float]:
    """All numbers that workers left under this kind."""
    found = []
    for path in folder().glob(f"{kind}-*"):
        found += json.loads(path.read_text())
    return found


def started_after() -> float:
    """Seconds from the start of the case's process to the first unit of training."""
    return min(notes("first")) - float(os.environ[SINCE])


def median_and_p99(seconds: Sequence[float]) -> tuple[float, float]:
    """In the unit given."""
    return statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]


def idle_memory(n_workers: int = 2, limit: float = 60.0) -> float:
    """PSS of this process and all below it in MB, once every worker sleeps in a trial."""
    end = time.monotonic() + limit
    while len(list(folder().glob("first-*"))) < n_workers:
        if time.monotonic() > end:
            raise TimeoutError("not every worker has begun a trial")
        time.sleep(0.05)
    time.sleep(1.0)  # what starts late is counted, too
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
    """Times between the units of one object's trials; lives in a worker."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._left: float | None = None
        note("first", [time.time()])

    def new_trial(self) -> None:
        """What follows belongs to another trial: the gap before it does not count."""
        self._left = None

    def enter(self) -> None:
        """A unit of training begins."""
        now = time.perf_counter()
        if self._left is not None:
            self.gaps.append(now - self._left)

    def leave(self) -> None:
        """A unit of training is done."""
        self._left = time.perf_counter()
