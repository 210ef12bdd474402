"""What the benchmarks of checkpoints share: tables, where they ran, and a disk that is slow."""

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
    """A table in Markdown, its first column to the left."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median (minimum)."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f})"


def among(values: Sequence[float], digits: int = 0) -> str:
    """Median, and the smallest and largest if they differ."""
    middle = statistics.median(values)
    median = f"{middle:,.{digits if digits or middle == int(middle) else 1}f}"  # half, of two
    low, high = (f"{v:,.{digits}f}" for v in (min(values), max(values)))
    return median if low == high else f"{median} ({low} to {high})"


def about(command: str, packages: Iterable[str]) -> str:
    """Where and when this runs; packages that are not installed are left out."""
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
    """Load averages now, for the end of a report."""
    return "Load average (1/5/15 min) at the end: " + " / ".join(
        f"{x:.1f}" for x in os.getloadavg()
    )


def inodes(folder: Path) -> tuple[int, int]:
    """Files and folders below a folder, and the files' bytes; what vanishes meanwhile counts 0."""
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
    """Let each flush to the disk in this process take so much longer; 0: as it was.

    The real flush is still made. A parallel file system under load takes such times.
    """
    real: Callable[[Any], None] = getattr(os.fsync, "real", os.fsync)

    def fsync(handle: Any) -> None:
        real(handle)
        time.sleep(seconds)

    fsync.real = real  # type: ignore[attr-defined]
    os.fsync = fsync if seconds else real  # type: ignore[assignment]
