"""A folder on a worker's local disk, where states wait for the study's store."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import numpy as np

from daskhpo.checkpoints.codec import Snapshot

_PREFIX = "daskhpo-staging-"


class Staging:
    """Staging files of one process, which no other process can use.

    They are not flushed to the disk and hold no layouts: only rows in the store count as written.
    The folder belongs to this process (mode 0700) and is locked while the process lives. The next
    process removes the folders of killed processes, which have no lock.

    Parameters
    ----------
    parent : folder on a local disk; created if it does not exist.

    Raises
    ------
    OSError
        The folder cannot be created.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent):  # no other process sees the new folder before it is locked
            for folder in parent.glob(f"{_PREFIX}*"):
                _remove_if_left(folder)
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._names = count()

    def put(self, snapshot: Snapshot) -> tuple[Snapshot, Path]:
        """Copy a snapshot to a file; return it as a read-only memory map, and the path.

        The map stays readable when the file is removed.

        Raises
        ------
        OSError
            The file cannot be written; it is removed.
        """
        path = self.path / str(next(self._names))
        try:
            with open(path, "xb", buffering=0) as file:
                rest = snapshot.buffer.data
                while rest:  # Linux writes at most 2 GiB at once
                    rest = rest[file.write(rest) :]
            row = np.asarray(np.memmap(path, np.uint8, "r"))
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        return Snapshot(row, snapshot.layout), path

    def close(self) -> None:
        """Remove all files and the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder unless it belongs to a live process or to another user."""
    with suppress(OSError):  # it belongs to another user, or its process holds the lock
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
