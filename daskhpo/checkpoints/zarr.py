"""A study's store: one zarr group, one array per layout, one row per checkpoint.

::

    checkpoints/
      zarr.json                   the group
      <layout's name>/            rows 0 to 9999
        zarr.json                 uint8 array, shape (2**31, n_bytes); its layout is an attribute
        <row>.0                   the row: one checkpoint
        <row>.1 ...               its other chunks, if it is larger than `codec.CHUNK_LIMIT`
      <layout's name>-<k>/        rows k * 10,000 to k * 10,000 + 9999, by the same numbers

Chunks are not compressed (weights shrink by 6-8 % at several times the time), so a chunk's file is
the row itself. This module writes and reads the files itself, at the paths of zarr's specification:
zarr's own local store does not fsync, and reads a missing chunk as zeros without an error. Any zarr
reader sees the same bytes: ``zarr.open_group(path)[ref.array][ref.id]``.

A row exists completely or not at all, even after a killed process or a power cut (see
`daskhpo.atomic_files`). A row that exists is committed only if the study's journal records it.
"""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from daskhpo.atomic_files import PARTIAL, flush_folder, write_file
from daskhpo.checkpoints import codec, files, metadata
from daskhpo.checkpoints.tree import ALIGNMENT, ByteArray
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing, CheckpointNotWritten
from daskhpo.core.types import CheckpointRef

ROWS_A_FOLDER = 10_000  # more make a folder slow to list and to search on network file systems
_ARRAY = re.compile(r"([0-9a-f]{24})(?:-([1-9][0-9]{0,5}))?")
_CHUNK = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_N_REMEMBERED = 16  # layouts; each may take a megabyte
_STEP = 2**23  # bytes in one read when a row is only verified


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """Number of removed files, and their bytes.

    The bytes of a row that stores share are freed when the last of them removes it.
    """

    n_files: int = 0
    n_bytes: int = 0

    def __add__(self, other: CleanupResult) -> CleanupResult:
        return CleanupResult(self.n_files + other.n_files, self.n_bytes + other.n_bytes)


class ZarrStore:
    """Checkpoints of one study in a folder; cheap to make, and picklable.

    Many processes may use the folder at once, but no two writers may get the same checkpoint id.
    One writer may write a row again: the row is then replaced, atomically if it has one chunk.

    Parameters
    ----------
    path : folder of the group; created at the first write.
    chunk_limit : largest row, in bytes, that is written in one chunk. Larger rows get several
        chunks of at most a quarter of the limit. A store reads rows written with any limit.

    Examples
    --------
    >>> import tempfile
    >>> from daskhpo.core.types import CheckpointRef
    >>> store = ZarrStore(tempfile.mkdtemp())
    >>> ref = store.write(CheckpointRef(id=0, trial=7, resource=3), {"epoch": 3})
    >>> store.read(ref)
    {'epoch': 3}
    """

    def __init__(self, path: str | os.PathLike[str], chunk_limit: int = codec.CHUNK_LIMIT) -> None:
        if chunk_limit < 4 * ALIGNMENT:
            raise ValueError(f"chunk_limit={chunk_limit!r} must be at least {4 * ALIGNMENT}")
        self.path = Path(path).absolute()  # a worker may have another working directory
        self.chunk_limit = chunk_limit
        self._layouts: dict[str, codec.Layout] = {}  # by name; names are hashes, so never stale
        self._is_on_local_disk: bool | None = None  # None until the first large row is read
        self._made: set[str] = set()  # arrays known to be durable on disk

    def __reduce__(self) -> tuple[type[ZarrStore], tuple[str, int]]:
        return ZarrStore, (str(self.path), self.chunk_limit)

    def __repr__(self) -> str:
        return f"ZarrStore({str(self.path)!r})"

    def write(self, ref: CheckpointRef, state: Any) -> CheckpointRef:
        """Write ``state`` durably; return ``ref`` with array, size and checksum.

        The bytes are written from the state's own memory: it must not change meanwhile.

        Raises
        ------
        StateNotSupported
            The state has a part that a checkpoint cannot hold; nothing is written.
        CheckpointNotWritten
            The disk is full, read-only or gone; no partial row is left.
        """
        return self._write(ref, *codec.in_pieces(state, ref.trial, ref.resource))

    def write_snapshot(self, ref: CheckpointRef, snapshot: codec.Snapshot) -> CheckpointRef:
        """Write a snapshot durably; return ``ref`` with array, size and checksum.

        Raises
        ------
        ValueError
            The snapshot's trial or resource differs from that of ``ref``.
        CheckpointNotWritten
            The disk is full, read-only or gone; no partial row is left.
        """
        codec.check_owner(ref, snapshot)
        return self._write(ref, snapshot.pieces(), snapshot.layout)

    def read(self, ref: CheckpointRef) -> Any:
        """Return the state that was written.

        The arrays of a large row on a local disk are mapped from its files. Pages are read when
        they are used, and copied when they are written to. The row may be deleted meanwhile; its
        disk space is freed with the last array.

        Raises
        ------
        CheckpointMissing
            The row does not exist, or cannot be read from the disk.
        CheckpointCorrupt
            The row or its layout differs from what was written.
        """
        layout, paths = self._find(ref)
        row = self._reading(ref, lambda: self._row(paths, ref, layout))
        codec.verify(row, ref, paths[0])
        return codec.decode_row(row, layout)

    def verify(self, ref: CheckpointRef) -> None:
        """Raise `CheckpointMissing` or `CheckpointCorrupt` if `read` would.

        Needs no memory for the whole row.
        """
        layout, paths = self._find(ref)
        preamble, found = self._reading(ref, lambda: _checksum_of_files(paths, layout.n_bytes))
        codec.check_checksum(preamble, found, ref, paths[0])

    def share(self, ref: CheckpointRef, other: ZarrStore) -> None:
        """Add a committed row to another store as well, under the same reference.

        No bytes are copied if the file system has hard links. Deleting the row in one store does
        not delete it in the other. The bytes are not verified.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt
            The row does not exist, or has the wrong size.
        CheckpointNotWritten
            The other store's disk is full, read-only or gone; no partial row is left.
        """
        layout, sources = self._find(ref)
        try:
            other._put(ref, layout, lambda paths: files.link_or_copy(sources, paths))
        except CheckpointNotWritten:
            self._find(ref)  # raises CheckpointMissing if the row was deleted meanwhile
            raise

    def delete(self, ref: CheckpointRef) -> None:
        """Remove a row, if it exists; from all arrays if ``ref.array`` is empty."""
        if ref.array:
            folders = [self._folder(ref)]
        else:
            folders = [
                folder for folder in self._arrays() if folder.name == _array(folder.name, ref.id)
            ]
        n_usual = -(-ref.n_bytes // (codec.chunk_bytes(ref.n_bytes, self.chunk_limit) or 1))
        for folder in folders:
            _delete_row(folder, ref.id, n_usual)

    def clean(self, keep: Collection[CheckpointRef] | None = None) -> CleanupResult:
        """Remove files of killed writers, and arrays without rows; return the amount.

        Call it only while no process writes.

        Parameters
        ----------
        keep : committed references; all other rows are removed. None: keep all rows.
        """
        places = None if keep is None else {(ref.array, ref.id) for ref in keep}
        cleaned = CleanupResult()
        with suppress(FileNotFoundError):
            for entry in builtins.list(os.scandir(self.path)):
                if entry.name.endswith(PARTIAL):
                    cleaned += _remove(entry)
        for folder in self._arrays():
            entries = builtins.list(os.scandir(folder))
            matches = [_CHUNK.fullmatch(entry.name) for entry in entries]
            rows = {match[1] for match in matches if match and match[2] == "0"}
            left = []
            for entry, match in zip(entries, matches, strict=True):
                is_stray = match is not None and (
                    match[1] not in rows  # the first chunk is renamed last and removed first
                    or (places is not None and (folder.name, int(match[1])) not in places)
                )
                if is_stray or entry.name.endswith(PARTIAL):
                    cleaned += _remove(entry)
                else:
                    left.append(entry)
            if all(entry.name == metadata.METADATA_FILE for entry in left):
                for entry in left:
                    cleaned += _remove(entry)
                with suppress(OSError):  # NFS keeps deleted files while they are open
                    folder.rmdir()
                self._made.discard(folder.name)
        return cleaned

    def list(self) -> builtins.list[CheckpointRef]:
        """Return all rows on disk, sorted by checkpoint id, committed or not.

        Only the journal records which rows are committed. Trial, resource and checksum are those in
        the row's preamble; they are not verified until the row is read. A row without a valid
        preamble has ``trial=-1``: it can be deleted, and reading it raises `CheckpointMissing` or
        `CheckpointCorrupt`.
        """
        refs = []
        for folder in self._arrays():
            rows: dict[int, set[int]] = {}
            for entry in os.scandir(folder):
                if match := _CHUNK.fullmatch(entry.name):
                    rows.setdefault(int(match[1]), set()).add(int(match[2]))
            for row, chunks in rows.items():
                with suppress(FileNotFoundError):  # deleted meanwhile
                    refs.append(self._inspect(folder, row, chunks))
        return sorted(refs, key=lambda ref: (ref.id, ref.array))

    # -- rows ------------------------------------------------------------------------------------

    def _write(
        self, ref: CheckpointRef, pieces: builtins.list[ByteArray], layout: codec.Layout
    ) -> CheckpointRef:
        if not 0 <= ref.id < metadata.MAX_ROWS:
            raise ValueError(
                f"checkpoint id {ref.id!r} must be at least 0 and below {metadata.MAX_ROWS}"
            )
        layout = layout.in_chunks(codec.chunk_bytes(layout.n_bytes, self.chunk_limit))
        array = _array(layout.name, ref.id)
        done = codec.complete_ref(ref, array, layout.n_bytes, codec.seal(pieces))
        self._put(done, layout, lambda paths: files.write_chunks(paths, pieces, layout.n_chunk))
        return done

    def _put(
        self, ref: CheckpointRef, layout: codec.Layout, act: Callable[[Sequence[Path]], None]
    ) -> None:
        """Create the row's folder, let ``act`` put the chunks there, and flush both."""
        folder = self._folder(ref)
        paths = _paths(folder, ref.id, layout.n_chunks)
        is_made = ref.array in self._made
        try:
            if not is_made:
                self._make(folder, layout)
            try:
                act(paths)
            except FileNotFoundError:  # another process removed the folder
                if not is_made:
                    raise
                is_made = False
                self._make(folder, layout)
                act(paths)
            try:
                flush_folder(folder)
                if not is_made:  # or another process made it, and may not have flushed it yet
                    flush_folder(self.path)
                    flush_folder(self.path.parent)
            except BaseException:
                with suppress(OSError):
                    _delete_row(folder, ref.id, layout.n_chunks)
                raise
            self._made.add(ref.array)
        except OSError as error:
            self._made.discard(ref.array)
            raise CheckpointNotWritten(paths[0], ref.trial, ref.resource, error) from error

    def _find(self, ref: CheckpointRef) -> tuple[codec.Layout, builtins.list[Path]]:
        """Return a row's layout and files, after a check of their existence and sizes."""
        if not ref.array:
            raise CheckpointMissing(codec.missing_message(self.path, ref))
        folder = self._folder(ref)
        first = folder / f"{ref.id}.0"
        n_first = self._reading(ref, first.stat).st_size
        layout = self._layout(ref.array)
        if layout.n_bytes != ref.n_bytes:
            raise codec.wrong_size(first, ref, layout.n_bytes)
        paths = _paths(folder, ref.id, layout.n_chunks)
        sizes = [n_first, *map(_size, paths[1:])]
        if any(size != layout.n_chunk for size in sizes):
            raise codec.wrong_size(first, ref, sum(sizes))
        return layout, paths

    def _row(self, paths: Sequence[Path], ref: CheckpointRef, layout: codec.Layout) -> ByteArray:
        n_bytes = layout.n_bytes
        if n_bytes >= codec.HUGE and self._is_local():
            # fresh memory would cost more than all the rest, and the state is usually copied anyway
            with suppress(ValueError, OSError):  # a read below raises the error, if there is one
                return files.map_privately(paths, n_bytes, layout.n_chunk)
        row = codec.fresh_row(n_bytes)
        n_read = files.read_chunks(paths, row, layout.n_chunk)
        if n_read != n_bytes:  # truncated meanwhile
            raise codec.wrong_size(paths[0], ref, n_read)
        return row

    def _is_local(self) -> bool:
        if self._is_on_local_disk is None:
            self._is_on_local_disk = files.is_local(self.path)
        return self._is_on_local_disk

    def _reading(self, ref: CheckpointRef, act: Callable[[], Any]) -> Any:
        path = self._folder(ref) / f"{ref.id}.0"
        try:
            return act()
        except FileNotFoundError:
            raise CheckpointMissing(codec.missing_message(path, ref)) from None
        except OSError as error:  # a failure of the disk or of the connection to it
            raise CheckpointMissing(codec.unreadable_message(path, ref, error)) from error

    def _inspect(self, folder: Path, row: int, chunks: set[int]) -> CheckpointRef:
        trial, resource, crc, n_bytes = -1, -1, 0, 0
        if 0 in chunks:
            with open(folder / f"{row}.0", "rb", buffering=0) as file:
                n_bytes = os.fstat(file.fileno()).st_size
                with suppress(ValueError):
                    trial, resource, crc = codec.read_preamble(file.read(codec.PREAMBLE_BYTES))
        if chunks != {0}:
            n_bytes += sum(_size(folder / f"{row}.{chunk}") for chunk in chunks - {0})
            with suppress(CheckpointCorrupt):
                layout = self._layout(folder.name)
                if n_bytes == layout.n_chunks * layout.n_chunk:  # with padding of the last chunk
                    n_bytes = layout.n_bytes
        return CheckpointRef(row, trial, resource, folder.name, n_bytes, crc)

    # -- arrays ----------------------------------------------------------------------------------

    def _folder(self, ref: CheckpointRef) -> Path:
        if not _ARRAY.fullmatch(ref.array):  # it may be read from a file: no paths outside ours
            raise CheckpointMissing(f"array={ref.array!r} is no array of {self.path}")
        return self.path / ref.array

    def _arrays(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            for entry in builtins.list(os.scandir(self.path)):
                if _ARRAY.fullmatch(entry.name):
                    yield self.path / entry.name

    def _make(self, folder: Path, layout: codec.Layout) -> None:
        """Create group and array if they do not exist; safe in many processes at once.

        Names are hashes, so all processes write the same metadata.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if not (self.path / metadata.METADATA_FILE).exists():
            write_file(self.path / metadata.METADATA_FILE, metadata.group_metadata())
        try:
            is_there = metadata.read_layout(folder / metadata.METADATA_FILE).name == layout.name
        except metadata.UNREADABLE:
            is_there = False
        if not is_there:
            write_file(folder / metadata.METADATA_FILE, metadata.array_metadata(layout))

    def _layout(self, array: str) -> codec.Layout:
        if (layout := self._layouts.get(array)) is None:
            path = self.path / array / metadata.METADATA_FILE
            try:
                layout = metadata.read_layout(path)
                if layout.name != array[:24]:
                    raise ValueError(f"found layout {layout.name} of {layout.n_bytes} bytes")
            except metadata.UNREADABLE as error:
                raise CheckpointCorrupt(
                    f"{path}: expected layout {array}; {type(error).__name__}: {error}; no row of "
                    "this array can be read until the file is restored; a running study trains the "
                    "trials again without these checkpoints"
                ) from error
            if len(self._layouts) >= _N_REMEMBERED:
                self._layouts.clear()
            self._layouts[array] = layout
        return layout


def _array(name: str, row: int) -> str:
    """Return the name of the array of a row.

    Parameters
    ----------
    name : the layout's name, or the name of any array of the layout.
    """
    part = row // ROWS_A_FOLDER
    return f"{name[:24]}-{part}" if part else name[:24]


def _paths(folder: Path, row: int, n_chunks: int) -> builtins.list[Path]:
    return [folder / f"{row}.{chunk}" for chunk in range(n_chunks)]


def _size(path: Path) -> int:
    """Return the size of a file; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _checksum_of_files(paths: Sequence[Path], n_bytes: int) -> tuple[bytes, int]:
    """Return a row's preamble, and the checksum of its bytes."""
    buffer = np.empty(min(n_bytes, _STEP), np.uint8)
    preamble, crc, rest = b"", 0, n_bytes
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while n_read := file.readinto(buffer.data[:rest]):
                part, rest = buffer[:n_read], rest - n_read
                if not preamble:
                    preamble, part = (
                        part[: codec.PREAMBLE_BYTES].tobytes(),
                        part[codec.AFTER_CHECKSUM :],
                    )
                crc = codec.extend(crc, part)
    return preamble, crc


def _delete_row(folder: Path, row: int, n_usual: int) -> None:
    """Remove a row's chunks in order; there may be more than ``n_usual``."""
    for chunk in count():
        try:
            os.unlink(folder / f"{row}.{chunk}")
        except FileNotFoundError:
            if chunk and chunk >= n_usual - 1:
                return


def _remove(entry: os.DirEntry[str]) -> CleanupResult:
    n_bytes = entry.stat().st_size
    os.unlink(entry.path)
    return CleanupResult(1, n_bytes)
