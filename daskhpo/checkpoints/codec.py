"""States as rows of bytes, and the layout that rows of one architecture share.

A row holds everything that changes from one checkpoint to the next::

    | preamble | values: JSON | byte blobs | zeros | arrays, each at a multiple of 64 bytes |
    |<------------------- Layout.n_header ------->|                                         |
    |<------------------------------- Layout.n_bytes -------------------------------------->|

Its `Layout` holds the names, dtypes, shapes and offsets of the arrays. Values are in the row, so a
changed value never needs a new layout. Header sizes are rounded up, so a longer value rarely does.
For the types that a state may hold, see `daskhpo.checkpoints.tree`.
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

METADATA_FILE = "zarr.json"  # of a group or an array
ROW_FORMAT = 1  # of rows and layouts; part of the layout's name, so formats never share an array

# magic, CRC-32C of all bytes after it, trial, resource, bytes of JSON
_PREAMBLE = struct.Struct("<4sIqqQ")
_MAGIC = b"dhpo"
AFTER_CHECKSUM = 8
PREAMBLE_BYTES = _PREAMBLE.size

_CHECKSUM_STEP = 2**24  # bytes a call; other threads wait for it, about a millisecond
HUGE = 2**22  # bytes; rows of this size or more get huge pages, or are mapped from their files
_NEXT = "a running study trains the trial again without this checkpoint"


# -- checksums -----------------------------------------------------------------------------------


def extend(crc: int, piece: ByteArray) -> int:
    """Return the CRC-32C ``crc``, extended by the bytes of ``piece``."""
    if piece.nbytes <= _CHECKSUM_STEP:
        return int(google_crc32c.extend(crc, piece))
    for start in range(0, piece.nbytes, _CHECKSUM_STEP):
        crc = google_crc32c.extend(crc, piece[start : start + _CHECKSUM_STEP])
    return crc


# -- layouts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """Structure of a row, shared by all checkpoints of one architecture.

    Attributes
    ----------
    tree : the state's tree. An array is ``{kind: [dtype, shape, offset]}``, with offsets counted
        from ``n_header``. A value is ``{"value": its index in the row's JSON}``.
    n_header : bytes before the first array.
    n_bytes : bytes of a row.
    n_chunk : bytes of each chunk of a row: as many as the row has. Older versions wrote rows above
        1 GiB in several chunks, the last one padded with zeros.
    name : hash of the fields above; equal layouts have equal names on all machines.
    """

    tree: Json
    n_header: int
    n_bytes: int
    n_chunk: int
    name: str

    @classmethod
    def of(cls, tree: Json, n_header: int, n_bytes: int, n_chunk: int | None = None) -> Layout:
        """Make a layout and its name; ``n_chunk=None``: one chunk a row."""
        n_chunk = n_bytes if n_chunk is None else n_chunk
        text = json.dumps([ROW_FORMAT, n_header, n_bytes, n_chunk, tree], separators=(",", ":"))
        name = blake2b(text.encode(), digest_size=12).hexdigest()
        return cls(tree, n_header, n_bytes, n_chunk, name)

    @property
    def n_chunks(self) -> int:
        """Number of chunks of a row, at least 1."""
        return -(-self.n_bytes // self.n_chunk)

    def to_json(self) -> dict[str, Json]:
        """Return the layout as JSON, for `from_json`."""
        return {
            "format": ROW_FORMAT,
            "n_header": self.n_header,
            "n_bytes": self.n_bytes,
            "n_chunk": self.n_chunk,
            "tree": self.tree,
        }

    @classmethod
    def from_json(cls, data: Json) -> Layout:
        """Read a layout; raise ValueError, KeyError or TypeError if it is invalid."""
        if data["format"] != ROW_FORMAT:
            raise ValueError(
                f"format {data['format']!r}; this version of daskhpo reads format {ROW_FORMAT}"
            )
        n_header, n_bytes, n_chunk = data["n_header"], data["n_bytes"], data["n_chunk"]
        if not (PREAMBLE_BYTES <= n_header <= n_bytes and PREAMBLE_BYTES <= n_chunk <= n_bytes):
            raise ValueError(
                f"impossible sizes: n_header={n_header!r}, n_bytes={n_bytes!r}, n_chunk={n_chunk!r}"
            )
        return cls.of(data["tree"], n_header, n_bytes, n_chunk)


# -- from a state to bytes -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state as it was at one moment, in its own memory.

    It is sent as the bytes of ``buffer`` and ``layout.to_json()``. The row's checksum is computed
    when a store writes it.
    """

    buffer: ByteArray
    layout: Layout

    @property
    def n_bytes(self) -> int:
        """Size of the row in bytes."""
        return self.layout.n_bytes

    @property
    def trial(self) -> int:
        """Id of the trial that the state belongs to."""
        return read_preamble(self.buffer[:PREAMBLE_BYTES].tobytes())[0]

    @property
    def resource(self) -> int:
        """Units of training that the state holds."""
        return read_preamble(self.buffer[:PREAMBLE_BYTES].tobytes())[1]

    def pieces(self) -> list[ByteArray]:
        """Return the row in pieces; the first is a copy, which `seal` may change."""
        n_header = self.layout.n_header
        return [self.buffer[:n_header].copy(), self.buffer[n_header:]]


def snapshot(state: Any, trial: int, resource: int, buffer: ByteArray | None = None) -> Snapshot:
    """Copy a state, each array once.

    Parameters
    ----------
    buffer : memory for the row, used if its size is right (fresh memory costs more than the copy).
        Its contents are overwritten, and it belongs to the snapshot afterwards. None: allocate.

    Raises
    ------
    StateNotSupported
        The state has a part that a checkpoint cannot hold; the message names the first one's path.
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
        arrays[end : _aligned(end)] = 0  # gaps must not expose old contents of memory
    return Snapshot(buffer, layout)


def restore(snapshot: Snapshot) -> Any:
    """Return the state of a snapshot; its arrays are copies.

    Raises
    ------
    ModuleNotFoundError
        The snapshot holds torch tensors and torch is not installed.
    """
    row = fresh_row(snapshot.n_bytes)
    row[:] = snapshot.buffer
    return decode_row(row, snapshot.layout)


def in_pieces(state: Any, trial: int, resource: int) -> tuple[list[ByteArray], Layout]:
    """Return a state's row as consecutive pieces of its own memory, and its layout.

    Only arrays that are on a device, not C-contiguous or lazily conjugated are copied. The state
    must therefore not change while the pieces are used.

    Raises
    ------
    StateNotSupported
        The state has a part that a checkpoint cannot hold; the message names the first one's path.
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


def seal(pieces: Sequence[ByteArray]) -> int:
    """Write a row's checksum into its first piece, and return it."""
    crc = checksum(pieces[0])
    for piece in pieces[1:]:
        crc = extend(crc, piece)
    struct.pack_into("<I", pieces[0].data, len(_MAGIC), crc)
    return crc


def fresh_row(n_bytes: int) -> ByteArray:
    """Return memory for a row; its contents are undefined."""
    if n_bytes < HUGE:
        return np.empty(n_bytes, np.uint8)
    try:
        memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # not enough memory: let numpy raise the usual error
        return np.empty(n_bytes, np.uint8)
    if sys.platform == "linux":
        with suppress(OSError):  # the kernel may not support it
            # with huge pages from the start, files are read into the memory three times as fast
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _header(parts: Parts, trial: int, resource: int) -> tuple[ByteArray, Layout]:
    """Return a row's header (all before its first array), unsealed, and the layout."""
    n_used = PREAMBLE_BYTES + len(parts.values) + len(parts.blobs)
    n_header = _header_size(n_used)
    header = np.zeros(n_header, np.uint8)
    _PREAMBLE.pack_into(header.data, 0, _MAGIC, 0, trial, resource, len(parts.values))
    header[PREAMBLE_BYTES:n_used] = np.frombuffer(parts.values + parts.blobs, np.uint8)
    return header, Layout.of(parts.tree, n_header, n_header + parts.n_bytes)


def _header_size(n_bytes: int) -> int:
    """Round a header's size up: eight sizes per power of two, at least 4 KiB."""
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
    """Return the trial, resource and checksum in a row's first bytes.

    Raises
    ------
    ValueError
        The bytes do not begin a row.
    """
    if len(preamble) < PREAMBLE_BYTES or not preamble.startswith(_MAGIC):
        raise ValueError("these bytes do not begin a checkpoint")
    _, crc, trial, resource, _ = _PREAMBLE.unpack_from(preamble)
    return trial, resource, crc


def complete_ref(ref: CheckpointRef, array: str, n_bytes: int, checksum: int) -> CheckpointRef:
    """Return ``ref`` with the array, size and checksum of its row."""
    return CheckpointRef(ref.id, ref.trial, ref.resource, array, n_bytes, checksum)


def check_owner(ref: CheckpointRef, snapshot: Snapshot) -> None:
    """Raise ValueError if trial and resource of a snapshot are not those of ``ref``."""
    if (snapshot.trial, snapshot.resource) != (ref.trial, ref.resource):
        raise ValueError(
            f"a snapshot of trial {snapshot.trial} at resource {snapshot.resource} cannot be "
            f"written for {_owner(ref)}; take the snapshot with the trial and resource of ref"
        )


def verify(row: ByteArray, ref: CheckpointRef, where: str | Path) -> None:
    """Raise `CheckpointCorrupt` unless a row has its committed size and checksum."""
    if row.nbytes != ref.n_bytes:
        raise wrong_size(where, ref, row.nbytes)
    check_checksum(row[:PREAMBLE_BYTES].tobytes(), checksum(row), ref, where)


def checksum(row: ByteArray) -> int:
    """Return a row's checksum, over all bytes after the checksum field."""
    return extend(0, row[AFTER_CHECKSUM:])


def check_checksum(preamble: bytes, found: int, ref: CheckpointRef, where: str | Path) -> None:
    """Raise `CheckpointCorrupt` unless preamble, found checksum and reference agree."""
    try:
        _, _, written = read_preamble(preamble)
    except ValueError as error:
        raise CheckpointCorrupt(f"{where}: {error} of {_owner(ref)}; {_NEXT}") from None
    if not ref.checksum == written == found:
        raise CheckpointCorrupt(
            f"{where}: expected checksum {ref.checksum:#010x} for {_owner(ref)}; the row records "
            f"{written:#010x} and its bytes have {found:#010x}; {_NEXT}"
        )


def wrong_size(where: str | Path, ref: CheckpointRef, n_bytes: int) -> CheckpointCorrupt:
    """Return the error for a row whose size differs from the committed one."""
    return CheckpointCorrupt(
        f"{where}: expected {ref.n_bytes} bytes for {_owner(ref)}, found {n_bytes}; {_NEXT}"
    )


def missing_message(where: str | Path, ref: CheckpointRef) -> str:
    """Return the message for a missing row."""
    if not ref.array:
        return f"{where}: checkpoint {ref.id} of {_owner(ref)} was never written; {_NEXT}"
    return f"{where}: expected {ref.n_bytes} bytes for {_owner(ref)}, found nothing; {_NEXT}"


def unreadable_message(where: str | Path, ref: CheckpointRef, error: OSError) -> str:
    """Return the message for a row that cannot be read from the disk."""
    return f"{where}: {_owner(ref)} cannot be read: {error.strerror or error}; {_NEXT}"


def _owner(ref: CheckpointRef) -> str:
    return f"trial {ref.trial} at resource {ref.resource}"
