"""A state as one row of bytes and back, and the layout that rows of one architecture share.

A row holds everything that changes from one checkpoint to the next::

    | preamble | values: JSON | long bytes | zeros | arrays, each at a multiple of 64 bytes |
    |<------------------- Layout.n_header ------->|                                         |
    |<------------------------------- Layout.n_bytes -------------------------------------->|

Its `Layout` holds the names, dtypes, shapes and offsets of the arrays. A value lies in the row, so
that it never makes a new layout; the header's room comes in few sizes, so that a longer value
seldom does. What a state may hold, and what comes back, is said in `daskhpo.checkpoints.tree`.
"""

from __future__ import annotations

import json
import mmap
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from daskhpo.checkpoints.tree import ALIGNMENT, ByteArray, Json, Parts, put_together, take_apart
from daskhpo.core.errors import CheckpointCorrupt
from daskhpo.core.types import CheckpointRef

ROW_FORMAT = 1  # of rows and layouts; part of the layout's name, so formats never share an array
PAGE = 2**16  # bytes: the largest pages that machines commonly have
CHUNK_LIMIT = 2**30  # a row of more bytes lies in several chunks, each of at most a quarter of it

_PREAMBLE = struct.Struct("<4sIqqQ")  # magic, CRC-32C of what follows it, trial, resource, n JSON
_MAGIC = b"dhpo"
AFTER_CHECKSUM = 8
PREAMBLE_BYTES = _PREAMBLE.size

_CHECKSUM_STEP = 2**24  # bytes; other threads wait meanwhile: about a millisecond
HUGE = 2**22  # bytes from which a row's memory is worth a thought
_NEXT = "a running study trains the trial again without it"


# -- checksums -----------------------------------------------------------------------------------


def extend(crc: int, piece: ByteArray) -> int:
    """Return the CRC-32C of what ``crc`` is of and ``piece`` after it."""
    if piece.nbytes <= _CHECKSUM_STEP:
        return int(google_crc32c.extend(crc, piece))
    for start in range(0, piece.nbytes, _CHECKSUM_STEP):
        crc = google_crc32c.extend(crc, piece[start : start + _CHECKSUM_STEP])
    return crc


# -- layouts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """What all checkpoints of one architecture share.

    Attributes
    ----------
    tree : the state with each array as ``{kind: [dtype, shape, offset]}``, offsets counted from
        ``n_header``, and each value as ``{"value": its number in the row's JSON}``.
    n_header : bytes before the first array.
    n_bytes : bytes of a row.
    n_chunk : bytes of each chunk of a row; the last one is filled up by fewer than
        ``PAGE`` bytes a chunk.
    name : hash of all that; equal layouts have equal names everywhere.
    """

    tree: Json
    n_header: int
    n_bytes: int
    n_chunk: int
    name: str

    @classmethod
    def of(cls, tree: Json, n_header: int, n_bytes: int, n_chunk: int | None = None) -> Layout:
        """Complete a layout by its name; without ``n_chunk``, by the chunks that are usual."""
        n_chunk = chunk_bytes(n_bytes) if n_chunk is None else n_chunk
        text = json.dumps([ROW_FORMAT, n_header, n_bytes, n_chunk, tree], separators=(",", ":"))
        name = blake2b(text.encode(), digest_size=12).hexdigest()
        return cls(tree, n_header, n_bytes, n_chunk, name)

    @property
    def n_chunks(self) -> int:
        """Chunks of a row, at least 1."""
        return -(-self.n_bytes // self.n_chunk)

    def in_chunks(self, n_chunk: int) -> Layout:
        """Return the layout of the same rows in chunks of another size."""
        if n_chunk == self.n_chunk:
            return self
        return Layout.of(self.tree, self.n_header, self.n_bytes, n_chunk)

    def to_json(self) -> dict[str, Json]:
        """Return what `from_json` reads."""
        return {
            "format": ROW_FORMAT,
            "n_header": self.n_header,
            "n_bytes": self.n_bytes,
            "n_chunk": self.n_chunk,
            "tree": self.tree,
        }

    @classmethod
    def from_json(cls, data: Json) -> Layout:
        """Read a layout; raises ValueError, KeyError or TypeError if it is none."""
        if data["format"] != ROW_FORMAT:
            raise ValueError(
                f"format {data['format']!r}; this version of daskhpo reads {ROW_FORMAT}"
            )
        n_header, n_bytes, n_chunk = data["n_header"], data["n_bytes"], data["n_chunk"]
        if not (PREAMBLE_BYTES <= n_header <= n_bytes and PREAMBLE_BYTES <= n_chunk <= n_bytes):
            raise ValueError(f"impossible sizes {n_header!r}, {n_bytes!r}, {n_chunk!r}")
        return cls.of(data["tree"], n_header, n_bytes, n_chunk)


def chunk_bytes(n_bytes: int, limit: int = CHUNK_LIMIT) -> int:
    """Return the size of the chunks of a row: one up to ``limit`` bytes, else several.

    Several are of equal size and at most a quarter of ``limit``: a multiple of `PAGE`, so that
    their files can be mapped one after another, or of `ALIGNMENT` if that quarter is none.
    """
    if n_bytes <= limit:
        return n_bytes
    quantum = PAGE if limit // 4 % PAGE == 0 else ALIGNMENT
    n_chunks = -(-n_bytes // (limit // 4))
    return -(-n_bytes // (n_chunks * quantum)) * quantum


# -- from a state to bytes -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state as it was at one moment, in memory of its own.

    It travels as the bytes of ``row`` and ``layout.to_json()``. The row's checksum is made when a
    store writes it.
    """

    buffer: ByteArray
    layout: Layout

    @property
    def n_bytes(self) -> int:
        """Size of the row."""
        return self.layout.n_bytes

    @property
    def trial(self) -> int:
        """Whose state it is."""
        return read_preamble(self.buffer[:PREAMBLE_BYTES].tobytes())[0]

    @property
    def resource(self) -> int:
        """After how many units of training."""
        return read_preamble(self.buffer[:PREAMBLE_BYTES].tobytes())[1]

    def pieces(self) -> list[ByteArray]:
        """Return the row in pieces of which `seal` may change the first."""
        n_header = self.layout.n_header
        return [self.buffer[:n_header].copy(), self.buffer[n_header:]]


def snapshot(state: Any, trial: int, resource: int, buffer: ByteArray | None = None) -> Snapshot:
    """Copy a state, each array once.

    Parameters
    ----------
    buffer : memory for the row, used if its size is right, whatever it holds: fresh memory costs
        more than the copy. It belongs to the snapshot from then on.

    Raises
    ------
    StateNotSupported
        Names the path of the first thing that a checkpoint cannot hold.
    """
    parts = take_apart(state)
    header, layout = _header(parts, trial, resource)
    if buffer is None or buffer.nbytes != layout.n_bytes:
        buffer = fresh_row(layout.n_bytes)
    buffer[: layout.n_header] = header
    arrays = buffer[layout.n_header :]
    for leaf in parts.leaves:
        end = leaf.offset + leaf.n_bytes
        leaf.copy_to(arrays[leaf.offset : end])
        arrays[end : _aligned(end)] = 0  # gaps must not hold other memory's contents
    return Snapshot(buffer, layout)


def restore(snapshot: Snapshot) -> Any:
    """Return the state; its arrays have memory of their own, so the snapshot stays as it is.

    Raises
    ------
    ModuleNotFoundError
        The snapshot holds torch tensors and torch is not installed.
    """
    row = fresh_row(snapshot.n_bytes)
    row[:] = snapshot.buffer
    return decode_row(row, snapshot.layout)


def in_pieces(state: Any, trial: int, resource: int) -> tuple[list[ByteArray], Layout]:
    """Return the row of a state as pieces that follow one another, each array in its own place.

    Nothing is copied but what lies on a device or in another order, so the state must stay as it is
    while the pieces are used.

    Raises
    ------
    StateNotSupported
        Names the path of the first thing that a checkpoint cannot hold.
    """
    parts = take_apart(state)
    header, layout = _header(parts, trial, resource)
    memories = [leaf.memory() for leaf in parts.leaves]
    n_elsewhere = sum(
        _aligned(leaf.n_bytes)
        for leaf, own in zip(parts.leaves, memories, strict=True)
        if own is None
    )
    room, gap = fresh_row(n_elsewhere), np.zeros(ALIGNMENT, np.uint8)
    pieces = [header]
    for leaf, own in zip(parts.leaves, memories, strict=True):
        piece = own
        if piece is None:
            piece, room = room[: leaf.n_bytes], room[_aligned(leaf.n_bytes) :]
            leaf.copy_to(piece)
        if leaf.n_bytes:
            pieces.append(piece)
        if n_gap := -leaf.n_bytes % ALIGNMENT:
            pieces.append(gap[:n_gap])
    return pieces, layout


def encode_state(state: Any, trial: int = 0, resource: int = 0) -> tuple[ByteArray, Layout]:
    """Return a snapshot's row, sealed, and its layout."""
    taken = snapshot(state, trial, resource)
    seal([taken.buffer])
    return taken.buffer, taken.layout


def seal(pieces: Sequence[ByteArray]) -> int:
    """Write the checksum of a row in its first piece, and return it."""
    crc = checksum(pieces[0])
    for piece in pieces[1:]:
        crc = extend(crc, piece)
    struct.pack_into("<I", pieces[0].data, len(_MAGIC), crc)
    return crc


def fresh_row(n_bytes: int) -> ByteArray:
    """Return memory for a row, its contents undefined."""
    if n_bytes < HUGE:
        return np.empty(n_bytes, np.uint8)
    try:
        memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # there is not so much: numpy says so by the error for it
        return np.empty(n_bytes, np.uint8)
    if sys.platform == "linux":
        with suppress(OSError):  # this kernel may have none
            # large pages from their beginning: files are read into it at three times the speed
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _header(parts: Parts, trial: int, resource: int) -> tuple[ByteArray, Layout]:
    """Return a row up to its first array, without a checksum, and the layout."""
    n_used = PREAMBLE_BYTES + len(parts.values) + len(parts.blobs)
    n_header = _header_size(n_used)
    header = np.zeros(n_header, np.uint8)
    _PREAMBLE.pack_into(header.data, 0, _MAGIC, 0, trial, resource, len(parts.values))
    header[PREAMBLE_BYTES:n_used] = np.frombuffer(parts.values + parts.blobs, np.uint8)
    return header, Layout.of(parts.tree, n_header, n_header + parts.n_bytes)


def _header_size(n_bytes: int) -> int:
    """Round a header up to one of eight sizes an octave, at least 4 KiB."""
    quantum = max(4096, 1 << max(0, n_bytes.bit_length() - 4))
    return -(-n_bytes // quantum) * quantum


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


# -- from bytes to a state -----------------------------------------------------------------------


def decode_row(row: ByteArray, layout: Layout) -> Any:
    """Return the state of a verified row; its arrays are views of ``row``.

    Raises
    ------
    ModuleNotFoundError
        The checkpoint holds torch tensors and torch is not installed.
    """
    n_json = _PREAMBLE.unpack_from(row.data)[-1]
    header, blobs = row[PREAMBLE_BYTES : layout.n_header], row[PREAMBLE_BYTES + n_json :]
    return put_together(layout.tree, header[:n_json].tobytes(), blobs, row[layout.n_header :])


def read_preamble(preamble: bytes) -> tuple[int, int, int]:
    """Return trial, resource and checksum of the row that begins so; ValueError if it is none."""
    if len(preamble) < PREAMBLE_BYTES or not preamble.startswith(_MAGIC):
        raise ValueError("these bytes do not begin a checkpoint")
    _, crc, trial, resource, _ = _PREAMBLE.unpack_from(preamble)
    return trial, resource, crc


def complete_ref(ref: CheckpointRef, array: str, n_bytes: int, checksum: int) -> CheckpointRef:
    """Return ``ref`` with the array, size and checksum of the row that is written for it."""
    return CheckpointRef(ref.id, ref.trial, ref.resource, array, n_bytes, checksum)


def check_owner(ref: CheckpointRef, snapshot: Snapshot) -> None:
    """Raise ValueError if a snapshot is not of the trial and resource that ``ref`` names."""
    if (snapshot.trial, snapshot.resource) != (ref.trial, ref.resource):
        raise ValueError(
            f"a snapshot of trial {snapshot.trial} at resource {snapshot.resource} cannot be "
            f"written for {_owner(ref)}; take it with the trial and resource of its reference"
        )


def verify(row: ByteArray, ref: CheckpointRef, where: str | Path) -> None:
    """Raise `CheckpointCorrupt` unless the row is, byte for byte, the one that was committed."""
    if row.nbytes != ref.n_bytes:
        raise wrong_size(where, ref, row.nbytes)
    check_checksum(row[:PREAMBLE_BYTES].tobytes(), checksum(row), ref, where)


def checksum(row: ByteArray) -> int:
    """Return the checksum of a row: of what follows the checksum in its preamble."""
    return extend(0, row[AFTER_CHECKSUM:])


def check_checksum(preamble: bytes, found: int, ref: CheckpointRef, where: str | Path) -> None:
    """Raise `CheckpointCorrupt` unless preamble, found checksum and reference agree."""
    try:
        _, _, written = read_preamble(preamble)
    except ValueError as error:
        raise CheckpointCorrupt(f"{where}: {error} of {_owner(ref)}; {_NEXT}") from None
    if not ref.checksum == written == found:
        raise CheckpointCorrupt(
            f"{where}: expected checksum {ref.checksum:#010x} for {_owner(ref)}; the row says "
            f"{written:#010x} and its bytes give {found:#010x}; {_NEXT}"
        )


def wrong_size(where: str | Path, ref: CheckpointRef, n_bytes: int) -> CheckpointCorrupt:
    """Return the error for a row of a size that was not committed."""
    return CheckpointCorrupt(
        f"{where}: expected {ref.n_bytes} bytes for {_owner(ref)}, found {n_bytes}; {_NEXT}"
    )


def missing_message(where: str | Path, ref: CheckpointRef) -> str:
    """Return the message for a row that is not there."""
    if not ref.array:
        return f"{where}: row {ref.id} of {_owner(ref)} was never written; {_NEXT}"
    return f"{where}: expected {ref.n_bytes} bytes for {_owner(ref)}, found nothing; {_NEXT}"


def unreadable_message(where: str | Path, ref: CheckpointRef, error: OSError) -> str:
    """Return the message for a row that the disk does not give."""
    return f"{where}: {_owner(ref)} cannot be read: {error.strerror or error}; {_NEXT}"


def _owner(ref: CheckpointRef) -> str:
    return f"trial {ref.trial} at resource {ref.resource}"
