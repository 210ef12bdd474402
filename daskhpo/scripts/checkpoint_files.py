"""The files of a program's checkpoints: as arrays, and whether they have changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Stamps = dict[Path, tuple[int, int, int]]  # of files: time of change, size, inode


def read_files(folder: Path) -> dict[str, Any]:
    """Return the files below a folder: their names and bytes, as uint8 arrays."""
    return {
        file.relative_to(folder).as_posix(): np.frombuffer(file.read_bytes(), np.uint8)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def write_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Write the files of :func:`read_files` into a folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.tobytes())


def stamps(folder: Path) -> Stamps:
    """Return what differs as soon as a file in a folder is written, added or removed."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it is removed meanwhile
            status = path.stat()
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
