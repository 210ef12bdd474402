"""A program that writes checkpoints to a disk of 2 MB until it is full, or while it is read-only.

A program of its own because it mounts that disk, and does so in a namespace of its own:

    unshare --map-root-user --mount python small_disk.py SCENE FOLDER
"""

from __future__ import annotations

import errno
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from daskhpo.checkpoints import ZarrStore, snapshot
from daskhpo.core.errors import CheckpointNotWritten
from daskhpo.core.types import CheckpointRef
from daskhpo.testing.stores import assert_same_state


def the_state(row: int) -> dict[str, object]:
    """Return what a row of 100 kB holds."""
    return {"row": row, "w": np.full(100_000, row % 251, np.uint8)}


def write_until_it_fails(store: ZarrStore) -> tuple[list[CheckpointRef], CheckpointNotWritten]:
    """Write rows, every other one as a snapshot; return them and what ended it."""
    refs = []
    for row in count():
        ref = CheckpointRef(row, row, 1)
        try:
            if row % 2:
                refs.append(store.write_snapshot(ref, snapshot(the_state(row), row, 1)))
            else:
                refs.append(store.write(ref, the_state(row)))
        except CheckpointNotWritten as error:
            return refs, error
    raise AssertionError


def full(path: Path) -> None:
    """A full disk: rows, then a new layout."""
    store = ZarrStore(path / "store")
    refs, error = write_until_it_fails(store)
    assert len(refs) > 10
    assert (error.errno, error.trial, error.resource) == (errno.ENOSPC, len(refs), 1), error
    assert store.list() == refs, "something of the failed write was left"
    assert store.clean(keep=refs).n_files == 0
    for ref in refs:
        assert_same_state(store.read(ref), the_state(ref.id))
    store.delete(refs[3])
    again = store.write(CheckpointRef(3, 3, 2), the_state(3))
    assert_same_state(store.read(again), the_state(3))
    with pytest.raises(CheckpointNotWritten, match="No space left"):
        store.write(CheckpointRef(99, 99, 1), {"another": np.ones(100_000)})
    store.clean(keep=[])
    assert store.list() == []


def read_only(path: Path) -> None:
    """A disk that becomes read-only and comes back."""
    store = ZarrStore(path / "store")
    ref = store.write(CheckpointRef(0, 0, 1), the_state(0))
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
    for state in (the_state(1), {"another": np.ones(3)}):
        with pytest.raises(CheckpointNotWritten, match="Read-only file system"):
            store.write(CheckpointRef(1, 1, 1), state)
    assert_same_state(store.read(ref), the_state(0))
    subprocess.run(["mount", "-o", "remount,rw", str(path)], check=True)
    assert_same_state(store.read(store.write(CheckpointRef(1, 1, 1), the_state(1))), the_state(1))


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=True)
    {"full": full, "read_only": read_only}[sys.argv[1]](folder)
