"""zarr's local store, with flushes to the disk and errors for missing rows.

Files are written as in :mod:`daskhpo.atomic_files`. The caller flushes their folder, once for all
files that it has written there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from zarr.storage import LocalStore

from daskhpo.atomic_files import NO_LINKS, replacing
from daskhpo.checkpoints.codec import HUGE, METADATA_FILE, fresh_row
from daskhpo.checkpoints.tree import ByteArray
from daskhpo.core.errors import CheckpointMissing

_CHUNK_KEY = re.compile(r"(.*/)?[0-9]+\.[0-9]+")
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"}
_IOV_MAX = 1024  # pieces in one call, a limit of Linux
_AT_ONCE = 2**20  # bytes in one call; with far more some writes took three times as long


class DurableStore(LocalStore):  # type: ignore[misc]
    """A folder in which each file is complete and on the disk before it has its name.

    Of zarr's methods, it changes those that write, and those that read: a chunk that does not exist
    raises `CheckpointMissing`, where zarr would read zeros. `write_pieces` and `read_row` are the
    same for a row of one chunk, without zarr's event loop and without copies of the row.
    """

    def set_sync(self, key: str, value: Any) -> None:
        """Write a value, and create its folder."""
        data: ByteArray = value.as_numpy_array().view(np.uint8)
        if key.endswith(METADATA_FILE):  # on one line, as all versions of daskhpo wrote it
            data = np.frombuffer(json.dumps(json.loads(data.tobytes())).encode(), np.uint8)
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        self.write_pieces(key, [data])

    async def set(self, key: str, value: Any) -> None:
        """Write a value, and create its folder."""
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """Write a value, unless there is one."""
        if not await self.exists(key):
            await self.set(key, value)

    def get_sync(self, key: str, **options: Any) -> Any:
        """Return a value; None if metadata does not exist."""
        return self._checked(key, super().get_sync(key, **options))

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Return a value; None if metadata does not exist."""
        return self._checked(key, await super().get(key, prototype, byte_range))

    def _checked(self, key: str, value: Any) -> Any:
        if value is None and _CHUNK_KEY.fullmatch(key):
            raise CheckpointMissing(f"{self.root / key} does not exist")
        return value

    # -- rows of one chunk -----------------------------------------------------------------------

    def write_pieces(self, key: str, pieces: Sequence[ByteArray]) -> None:
        """Write a value that is in pieces, without copying them; its folder must exist."""
        with (
            replacing([self.root / key]) as (partial,),
            open(partial, "xb", buffering=0) as file,
        ):
            _write_all(file, pieces)
            os.fsync(file.fileno())

    def read_row(self, key: str, n_bytes: int) -> ByteArray:
        """Return a row, in fresh memory or mapped from its file; shorter if the file is.

        A large row on a local disk is mapped: fresh memory for it would cost more than all the
        rest. Its pages are read when they are used, and copied when they are written to. The file
        may be removed meanwhile.
        """
        path = self.root / key
        if n_bytes >= HUGE and self._is_local:
            with suppress(ValueError, OSError):  # a read below raises the error, if there is one
                return np.asarray(np.memmap(path, np.uint8, "c", shape=(n_bytes,)))
        row = fresh_row(n_bytes)
        with open(path, "rb", buffering=0) as file:
            rest = row.data
            while rest and (n_read := file.readinto(rest)):  # Linux reads at most 2 GiB at once
                rest = rest[n_read:]
        return row[: n_bytes - rest.nbytes]

    @cached_property
    def _is_local(self) -> bool:
        return is_local(self.root)


def link_or_copy(sources: Sequence[Path], paths: Sequence[Path]) -> None:
    """Put the files ``sources`` also at ``paths``: as hard links, or else as copies."""
    with replacing(paths) as partials:
        for source, partial in zip(sources, partials, strict=True):
            _link_or_copy(source, partial)
    for partial in partials:  # a rename does nothing if both names are links to the same file
        partial.unlink(missing_ok=True)


def is_local(path: Path) -> bool:
    """Return True if a path is known to be on this machine's disks or in its memory.

    On a shared file system, a process that uses a page of a mapped file is killed by SIGBUS if the
    file was removed.
    """
    import psutil

    places = {path.resolve(), *path.resolve().parents}
    mounts = [one for one in psutil.disk_partitions(all=True) if Path(one.mountpoint) in places]
    mounts.sort(key=lambda mount: len(mount.mountpoint))  # stable: the last one at a place counts
    return bool(mounts) and mounts[-1].fstype in _LOCAL


def _write_all(file: IO[bytes], pieces: Sequence[ByteArray]) -> None:
    rest = [piece.data for piece in pieces]
    first = 0
    while first < len(rest):
        some: list[memoryview] = []
        room = _AT_ONCE
        for piece in rest[first : first + _IOV_MAX]:
            if room == 0:
                break
            some.append(piece[:room])
            room -= some[-1].nbytes
        n_written = os.writev(file.fileno(), some)
        while first < len(rest) and n_written >= rest[first].nbytes:
            n_written -= rest[first].nbytes
            first += 1
        if n_written:  # a partial write, such as before the disk is full
            rest[first] = rest[first][n_written:]


def _link_or_copy(source: Path, partial: Path) -> None:
    try:
        partial.hardlink_to(source)
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    with open(source, "rb") as original, open(partial, "xb") as file:
        shutil.copyfileobj(original, file, 2**20)
        file.flush()
        os.fsync(file.fileno())
