"""Files of rows: chunks that are written atomically, linked, read or mapped.

Files are written as in :mod:`daskhpo.atomic_files`. The caller flushes their folder, once for all
files that it has written there.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from daskhpo.atomic_files import replacing
from daskhpo.checkpoints.tree import ByteArray

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")

N_THREADS = 8  # for the chunks of one row
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"}
_MAP_FIXED = 0x10  # on Linux, the only system where `is_local` can be True; not in Python's mmap
_IOV_MAX = 1024  # pieces in one call, a limit of Linux
_AT_ONCE = 2**20  # bytes in one call; with far more some writes took three times as long
# No hard link: other file system, links not supported, too many links, or not permitted.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


def write_chunks(paths: Sequence[Path], pieces: Sequence[ByteArray], n_chunk: int) -> None:
    """Write a row in chunks of ``n_chunk`` bytes, the last one padded with zeros.

    All chunks are on the disk before any is renamed, and the row's first chunk is renamed last.
    """
    with replacing(paths) as partials:
        chunks = [pieces] if len(paths) == 1 else _chunks(pieces, n_chunk)
        _at_once(_fill, partials, chunks)


def link_or_copy(sources: Sequence[Path], paths: Sequence[Path]) -> None:
    """Put the files ``sources`` also at ``paths``: as hard links, or else as copies."""
    with replacing(paths) as partials:
        _at_once(_link_or_copy, sources, partials)
    for partial in partials:  # a rename does nothing if both names are links to the same file
        partial.unlink(missing_ok=True)


def read_into(path: Path, part: ByteArray) -> int:
    """Fill ``part`` from the start of a file; return the number of bytes read."""
    with open(path, "rb", buffering=0) as file:
        rest = part.data
        while rest and (n_read := file.readinto(rest)):  # Linux reads at most 2 GiB at once
            rest = rest[n_read:]
    return part.nbytes - rest.nbytes


def read_chunks(paths: Sequence[Path], row: ByteArray, n_chunk: int) -> int:
    """Fill ``row`` from chunks; return the number of bytes read."""
    parts = [row[start : start + n_chunk] for start in range(0, row.nbytes, n_chunk)]
    return sum(_at_once(read_into, paths, parts))


def map_privately(paths: Sequence[Path], n_bytes: int, n_chunk: int) -> ByteArray:
    """Return a row mapped from its chunks; pages are read when they are used.

    A write to a page makes a private copy of it. On a local file system the files may be removed
    meanwhile. On a shared one, a process that then uses a page is killed by SIGBUS.

    Raises
    ------
    ValueError
        A file is too short, or a page of this machine would span two chunks.
    """
    if len(paths) > 1 and n_chunk % mmap.PAGESIZE:
        raise ValueError(f"chunks of {n_chunk} bytes are not whole pages of {mmap.PAGESIZE}")
    room = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    row = np.frombuffer(room, np.uint8)  # unmaps the room and the files in it when it is freed
    for path, start in zip(paths, range(0, n_bytes, n_chunk), strict=True):
        with open(path, "rb", buffering=0) as file:
            _map_over(row[start : start + n_chunk], file.fileno())
    return row


def _map_over(part: ByteArray, handle: int) -> None:
    """Map a file over anonymous pages, which Python's own mmap cannot do."""
    if (n_bytes := os.fstat(handle).st_size) < part.nbytes:
        raise ValueError(f"expected at least {part.nbytes} bytes, found {n_bytes}")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    libc.mmap.restype = ctypes.c_void_p
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
    if libc.mmap(part.ctypes.data, part.nbytes, protection, flags, handle, 0) != part.ctypes.data:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def is_local(path: Path) -> bool:
    """Return True if a path is known to be on this machine's disks or in its memory."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    places = {path.resolve(), *path.resolve().parents}
    kind, depth = "", -1
    for mount in mounts:  # field 5: the mount point; first field after " - ": the file system
        word = mount.split()[4]  # spaces in it are written as \040
        place = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), word))
        if place in places and len(place.parts) >= depth:  # the last mount at a place counts
            kind, depth = mount.partition(" - ")[2].split()[0], len(place.parts)
    return kind in _LOCAL


def _at_once(act: Callable[[A, B], R], ones: Sequence[A], others: Sequence[B]) -> list[R]:
    pairs = list(zip(ones, others, strict=True))
    if len(pairs) == 1:
        return [act(*pairs[0])]
    with ThreadPoolExecutor(min(len(pairs), N_THREADS)) as pool:
        return list(pool.map(lambda pair: act(*pair), pairs))


def _fill(partial: Path, pieces: Sequence[ByteArray | bytes]) -> None:
    with open(partial, "xb", buffering=0) as file:
        _write_all(file, pieces)
        os.fsync(file.fileno())


def _write_all(file: IO[bytes], pieces: Sequence[ByteArray | bytes]) -> None:
    rest = [piece.data if isinstance(piece, np.ndarray) else memoryview(piece) for piece in pieces]
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


def _chunks(pieces: Sequence[ByteArray], n_chunk: int) -> list[list[ByteArray | bytes]]:
    """Cut a row into chunks, without copying."""
    chunks: list[list[ByteArray | bytes]] = [[]]
    room = n_chunk
    for piece in pieces:
        start = 0
        while start < piece.nbytes:
            if room == 0:
                chunks.append([])
                room = n_chunk
            part = piece[start : start + room]
            chunks[-1].append(part)
            start += part.nbytes
            room -= part.nbytes
    chunks[-1].append(bytes(room))
    return chunks


def _link_or_copy(source: Path, partial: Path) -> None:
    try:
        partial.hardlink_to(source)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    with open(source, "rb") as original, open(partial, "xb") as file:
        shutil.copyfileobj(original, file, 2**20)
        file.flush()
        os.fsync(file.fileno())
