"""Helpers of the benchmarks: tables, a description of the machine, a slow disk."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table; its first column is left-aligned."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Format as ``median (minimum)``."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f})"


def among(values: Sequence[float], digits: int = 0) -> str:
    """Format the median, and the smallest and largest value if they differ."""
    middle = statistics.median(values)
    # A median of two integers may end in .5.
    median = f"{middle:,.{digits if digits or middle == int(middle) else 1}f}"
    low, high = (f"{v:,.{digits}f}" for v in (min(values), max(values)))
    return median if low == high else f"{median} ({low} to {high})"


def about(command: str, packages: Iterable[str]) -> str:
    """Describe command, date, machine and versions of installed packages."""
    versions = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    load = " / ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"Written by `{command}` on {datetime.now():%Y-%m-%d}.\n\n"
        f"- machine: {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, shared; load "
        f"average (1/5/15 min) {load} at the beginning\n"
        f"- {', '.join(versions)}"
    )


def load() -> str:
    """Describe the current load averages, for the end of a report."""
    return "Load average (1/5/15 min) at the end: " + " / ".join(
        f"{x:.1f}" for x in os.getloadavg()
    )


def inodes(folder: Path) -> tuple[int, int]:
    """Count files and folders below a folder, and the files' bytes.

    Files that are deleted meanwhile are not counted.
    """
    n, n_bytes = 0, 0
    for place, folders, names in os.walk(folder):
        n += len(folders) + len(names)
        for name in names:
            try:
                n_bytes += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                n -= 1
    return n, n_bytes


def slow_flush(seconds: float) -> None:
    """Delay each flush to disk in this process by ``seconds``; 0: remove the delay.

    The real flush is still made. Parallel file systems under load have such delays.
    """
    real: Callable[[Any], None] = getattr(os.fsync, "real", os.fsync)

    def fsync(handle: Any) -> None:
        real(handle)
        time.sleep(seconds)

    fsync.real = real  # type: ignore[attr-defined]
    os.fsync = fsync if seconds else real  # type: ignore[assignment]
