"""A study's store: one zarr group, one array per layout, one row per checkpoint.

::

    checkpoints/
      zarr.json                   the group
      <layout's name>/            rows 0 to 9999
        zarr.json                 uint8 array, shape (2**31, n_bytes); its layout is an attribute
        <row>.0                   the row: one checkpoint
        <row>.1 ...               its other chunks: in rows above 1 GiB by earlier versions
      <layout's name>-<k>/        rows k * 10,000 to k * 10,000 + 9999, by the same numbers

Chunks are not compressed (weights shrink by 6-8 % at several times the time), so a chunk's file is
the row itself. zarr creates and opens the group and its arrays; a row's bytes pass by zarr's event
loop (see `daskhpo.checkpoints.local_store`). Any zarr reader sees the same bytes:
``zarr.open_group(path)[ref.array][ref.id]``. zarr is loaded when a row is first written or read, or
before, by `ZarrStore.prepare`.

A row exists completely or not at all, even after a killed process or a power cut (see
`daskhpo.atomic_files`). A row that exists is committed only if the study's journal records it.
"""

from __future__ import annotations

import builtins
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskhpo.atomic_files import PARTIAL, flush_folder
from daskhpo.checkpoints import codec
from daskhpo.checkpoints.tree import ByteArray
from daskhpo.core.arguments import check_path
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing, CheckpointNotWritten
from daskhpo.core.types import CheckpointRef

if TYPE_CHECKING:
    from daskhpo.checkpoints.local_store import DurableStore

MAX_ROWS = 2**31
ROWS_A_FOLDER = 10_000  # more make a folder slow to list and to search on network file systems
_ARRAY = re.compile(r"([0-9a-f]{24})(?:-([1-9][0-9]{0,5}))?")
_CHUNK = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_N_REMEMBERED = 16  # layouts; each may take a megabyte
_LOADING = threading.Lock()
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
    One writer may write a row again: the row is then replaced atomically.

    Parameters
    ----------
    path : folder of the group; created at the first write.

    Examples
    --------
    >>> import tempfile
    >>> from daskhpo.core.types import CheckpointRef
    >>> store = ZarrStore(tempfile.mkdtemp())
    >>> ref = store.write(CheckpointRef(id=0, trial=7, resource=3), {"epoch": 3})
    >>> store.read(ref)
    {'epoch': 3}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute: a worker may have another working directory.
        self.path = check_path("path", path).absolute()
        self._layouts: dict[str, codec.Layout] = {}  # by name; names are hashes, so never stale
        self._made: set[str] = set()  # arrays known to be durable on disk

    def __reduce__(self) -> tuple[type[ZarrStore], tuple[str]]:
        return type(self), (str(self.path),)

    def __repr__(self) -> str:
        return f"ZarrStore({str(self.path)!r})"

    def prepare(self) -> None:
        """Load zarr in a thread.

        The first write may be the last thing that its process has time for.
        """
        threading.Thread(target=_load_zarr, daemon=True).start()

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
        row = self._reading(ref, lambda: self._row(ref, layout))
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
        link_or_copy = _load_zarr().link_or_copy
        layout, sources = self._find(ref)
        paths = _paths(other._folder(ref), ref.id, layout.n_chunks)
        try:
            other._put(ref, layout, lambda: link_or_copy(sources, paths))
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
        for folder in folders:
            _delete_row(folder, ref.id)

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
            if all(entry.name == codec.METADATA_FILE for entry in left):
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
        if not 0 <= ref.id < MAX_ROWS:
            raise ValueError(f"checkpoint id {ref.id!r} must be at least 0 and below {MAX_ROWS}")
        array = _array(layout.name, ref.id)
        done = codec.complete_ref(ref, array, layout.n_bytes, codec.seal(pieces))
        self._put(done, layout, lambda: self._disk.write_pieces(f"{array}/{ref.id}.0", pieces))
        return done

    def _put(self, ref: CheckpointRef, layout: codec.Layout, act: Callable[[], None]) -> None:
        """Create the row's array, let ``act`` put its files there, and flush the folders."""
        folder = self._folder(ref)
        is_made = ref.array in self._made
        try:
            if not is_made:
                self._make(ref.array, layout)
            try:
                act()
            except FileNotFoundError:  # another process removed the folder
                if not is_made:
                    raise
                is_made = False
                self._make(ref.array, layout)
                act()
            try:
                flush_folder(folder)
                if not is_made:  # or another process made it, and may not have flushed it yet
                    flush_folder(self.path)
                    flush_folder(self.path.parent)
            except BaseException:
                with suppress(OSError):
                    _delete_row(folder, ref.id)
                raise
            self._made.add(ref.array)
        except OSError as error:
            self._made.discard(ref.array)
            path = folder / f"{ref.id}.0"
            raise CheckpointNotWritten(path, ref.trial, ref.resource, error) from error

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

    def _row(self, ref: CheckpointRef, layout: codec.Layout) -> ByteArray:
        if layout.n_chunks > 1:
            return np.asarray(self._open(ref.array)[ref.id])
        row = self._disk.read_row(f"{ref.array}/{ref.id}.0", layout.n_bytes)
        if row.nbytes != layout.n_bytes:  # truncated meanwhile
            raise codec.wrong_size(self._folder(ref) / f"{ref.id}.0", ref, row.nbytes)
        return row

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

    @cached_property
    def _disk(self) -> DurableStore:
        store: DurableStore = _load_zarr().DurableStore(self.path)
        return store

    def _make(self, array: str, layout: codec.Layout) -> None:
        """Create group and array if they do not exist; safe in many processes at once.

        Names are hashes, so all processes write the same metadata.
        """
        _load_zarr()
        import zarr
        from zarr.errors import ContainsArrayError, ContainsGroupError

        if not (self.path / codec.METADATA_FILE).exists():
            attributes = {"daskhpo": {"format": codec.ROW_FORMAT}}
            with suppress(ContainsGroupError):  # another process was faster
                zarr.create_group(self._disk, zarr_format=3, attributes=attributes)
        try:
            self._layouts.pop(array, None)
            self._layout(array)
        except CheckpointCorrupt as error:
            if not isinstance(error.__cause__, OSError):  # damaged: zarr would not replace it
                (self.path / array / codec.METADATA_FILE).unlink(missing_ok=True)
            with suppress(ContainsArrayError):
                zarr.create_array(
                    self._disk,
                    name=array,
                    shape=(MAX_ROWS, layout.n_bytes),
                    chunks=(1, layout.n_chunk),
                    dtype="uint8",
                    fill_value=0,
                    filters=None,
                    compressors=None,
                    chunk_key_encoding={"name": "v2", "separator": "."},
                    attributes={"daskhpo": layout.to_json()},
                    zarr_format=3,
                )

    def _open(self, array: str) -> Any:
        """Return a `zarr.Array`."""
        _load_zarr()
        import zarr

        return zarr.open_array(self._disk, path=array, mode="r", zarr_format=3)

    def _layout(self, array: str) -> codec.Layout:
        if (layout := self._layouts.get(array)) is None:
            try:
                layout = codec.Layout.from_json(self._open(array).attrs["daskhpo"])
                if layout.name != array[:24]:
                    raise ValueError(f"found layout {layout.name} of {layout.n_bytes} bytes")
            except Exception as error:  # zarr has many for metadata that is missing or damaged
                raise CheckpointCorrupt(
                    f"{self.path / array / codec.METADATA_FILE}: expected layout {array}; "
                    f"{type(error).__name__}: {error}; no row of this array can be read until the "
                    "file is restored; a running study trains the trials again without these "
                    "checkpoints"
                ) from error
            if len(self._layouts) >= _N_REMEMBERED:
                self._layouts.clear()
            self._layouts[array] = layout
        return layout


def _load_zarr() -> Any:
    """Return `daskhpo.checkpoints.local_store`; the first call loads zarr.

    Two threads that import zarr at a time, each by another of its modules, find it half loaded.
    """
    with _LOADING:
        return import_module("daskhpo.checkpoints.local_store")


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


def _delete_row(folder: Path, row: int) -> None:
    """Remove a row's chunks, the first one first: a row without it does not exist."""
    with suppress(FileNotFoundError):
        for chunk in count():
            os.unlink(folder / f"{row}.{chunk}")


def _remove(entry: os.DirEntry[str]) -> CleanupResult:
    n_bytes = entry.stat().st_size
    os.unlink(entry.path)
    return CleanupResult(1, n_bytes)
