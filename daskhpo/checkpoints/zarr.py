"""The store of a study: one zarr group, one array per layout, one row and file per checkpoint.

::

    checkpoints/
      zarr.json                   the group
      <layout's name>/
        zarr.json                 uint8 array, shape (2**31, n_bytes); its layout is an attribute
        <row>.0                   the only chunk of a row: one checkpoint

Chunks are not compressed (weights shrink by 6-8 % at several times the time), so a chunk's file is
the row itself. Rows are written and read as files, in zarr's places: zarr's own local store does
not fsync, and reads a missing chunk as zeros without an error. Any zarr reader sees the same bytes:
``zarr.open_group(path)[array][row]``.

A row is written to a ``.partial`` file, flushed to the disk and renamed, and its folder flushed:
so a row is there completely or not at all, after a killed process and after a power cut. Being
there does not make it committed: that is said by the study's journal.
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore as ZarrMemory

from daskhpo.checkpoints import codec
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing
from daskhpo.core.types import CheckpointRef

MAX_ROWS = 2**31
_ARRAY = re.compile(r"[0-9a-f]{24}")
_CHUNK = re.compile(r"(\d+)\.0")
_PARTIAL = ".partial"


class ZarrStore:
    """Checkpoints of one study in a folder; cheap to make, picklable, used by many processes.

    No two writers may be given the same row, except that one may write a row again: the row is
    then replaced at once. ``OSError`` (no space, no permission) is passed on, and leaves nothing.

    Parameters
    ----------
    path : folder of the group; made at the first write.

    Examples
    --------
    >>> import tempfile
    >>> from daskhpo.core.types import CheckpointRef
    >>> store = ZarrStore(tempfile.mkdtemp())
    >>> ref = store.write(CheckpointRef(row=0, trial=7, resource=3), {"epoch": 3})
    >>> store.read(ref)
    {'epoch': 3}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()  # a worker may have another working directory
        self._layouts: dict[str, codec.Layout] = {}  # read; names are hashes: never out of date
        self._made: set[str] = set()  # arrays known to be durable on disk

    def __reduce__(self) -> tuple[type[ZarrStore], tuple[str]]:
        return ZarrStore, (str(self.path),)

    def __repr__(self) -> str:
        return f"ZarrStore({str(self.path)!r})"

    def write(self, ref: CheckpointRef, state: Any) -> CheckpointRef:
        """Write ``state`` durably; return ``ref`` with array, size and checksum.

        Raises
        ------
        StateNotSupported
            The state holds something that a checkpoint cannot hold; nothing is written.
        """
        if not 0 <= ref.row < MAX_ROWS:
            raise ValueError(f"row={ref.row!r} must be at least 0 and below {MAX_ROWS}")
        row, layout = codec.encode(state, ref.trial, ref.resource)
        self._make(layout)
        done = codec.complete(ref, row, layout)
        _commit(self._file(done), row)
        return done

    def read(self, ref: CheckpointRef) -> Any:
        """Return the state that was written.

        Raises
        ------
        CheckpointMissing
            There is no such row.
        CheckpointCorrupt
            The row or its layout is not, byte for byte, what was written.
        """
        if not ref.array:
            raise CheckpointMissing(codec.absent(self.path, ref))
        path = self._file(ref)
        try:
            row = _read(path, ref)
        except FileNotFoundError:
            raise CheckpointMissing(codec.absent(path, ref)) from None
        codec.verify(row, ref, path)
        return codec.decode(row, self._layout(ref))

    def delete(self, ref: CheckpointRef) -> None:
        """Remove a row, in every array if ``ref.array`` is empty; fine if it is not there."""
        if ref.array:
            self._file(ref).unlink(missing_ok=True)
            return
        for folder in self._arrays():
            (folder / f"{ref.row}.0").unlink(missing_ok=True)

    def clean(self) -> int:
        """Remove what killed writers left; return how many files. Only when nobody writes."""
        n_removed = 0
        for folder in [self.path, *self._arrays()]:
            for partial in folder.glob(f"*{_PARTIAL}"):
                partial.unlink(missing_ok=True)
                n_removed += 1
            if folder != self.path and not (folder / "zarr.json").exists():
                with suppress(OSError):  # not empty: rows without a layout; reading them says so
                    folder.rmdir()
        return n_removed

    def list(self) -> builtins.list[CheckpointRef]:
        """Return what lies on disk, by row, committed or not: only the journal knows which is.

        Trial, resource and checksum are those that the row says, and are not verified before it is
        read. A file that does not begin as a checkpoint does is given with ``trial=-1``: it can be
        deleted, and reading it raises `CheckpointCorrupt`.
        """
        refs = []
        for folder in self._arrays():
            for entry in os.scandir(folder):
                if match := _CHUNK.fullmatch(entry.name):
                    with suppress(FileNotFoundError):  # deleted just now
                        refs.append(_look(entry.path, int(match[1]), folder.name))
        return sorted(refs, key=lambda ref: (ref.row, ref.array))

    # -- places ----------------------------------------------------------------------------------

    def _file(self, ref: CheckpointRef) -> Path:
        if not _ARRAY.fullmatch(ref.array):  # it may come from a file: it must not leave the folder
            raise CheckpointMissing(f"array={ref.array!r} is no array of {self.path}")
        return self.path / ref.array / f"{ref.row}.0"

    def _arrays(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            for entry in builtins.list(os.scandir(self.path)):
                if _ARRAY.fullmatch(entry.name):
                    yield self.path / entry.name

    # -- layouts ---------------------------------------------------------------------------------

    def _make(self, layout: codec.Layout) -> None:
        """Make sure that group and array are on disk; any number of processes may do so at once.

        Names are hashes, so whoever writes the metadata last writes the same.
        """
        if layout.name in self._made:
            return
        folder = self.path / layout.name
        folder.mkdir(parents=True, exist_ok=True)
        if not (self.path / "zarr.json").exists():
            _commit(self.path / "zarr.json", _group_metadata())
        try:
            is_there = _read_layout(folder / "zarr.json").name == layout.name
        except (OSError, ValueError, KeyError, TypeError):
            is_there = False
        if not is_there:
            _commit(folder / "zarr.json", _array_metadata(layout))
        # also what another process has made: it may not have come to flush it yet
        for parent in (folder, self.path, self.path.parent):
            _flush_folder(parent)
        self._made.add(layout.name)

    def _layout(self, ref: CheckpointRef) -> codec.Layout:
        if (layout := self._layouts.get(ref.array)) is None:
            path = self.path / ref.array / "zarr.json"
            try:
                layout = _read_layout(path)
                if layout.name != ref.array or layout.n_bytes != ref.n_bytes:
                    raise ValueError(f"found layout {layout.name} of {layout.n_bytes} bytes")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CheckpointCorrupt(
                    f"{path}: expected layout {ref.array} of {ref.n_bytes} bytes; "
                    f"{type(error).__name__}: {error}; no row of it can be read until it is "
                    "restored, and a running study trains its trials again"
                ) from error
            self._layouts[ref.array] = layout
        return layout


def _read_layout(path: Path) -> codec.Layout:
    return codec.Layout.from_json(json.loads(path.read_bytes())["attributes"]["daskhpo"])


def _array_metadata(layout: codec.Layout) -> bytes:
    """Return the zarr.json of a layout's array, as zarr itself writes it."""
    files: dict[str, Any] = {}
    zarr.create_array(
        ZarrMemory(files),
        shape=(MAX_ROWS, layout.n_bytes),
        chunks=(1, layout.n_bytes),
        dtype="uint8",
        compressors=None,
        filters=None,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "."},
        attributes={"daskhpo": layout.to_json()},
    )
    return bytes(files["zarr.json"].to_bytes())


def _group_metadata() -> bytes:
    files: dict[str, Any] = {}
    zarr.create_group(ZarrMemory(files), attributes={"daskhpo": {"format": codec.FORMAT}})
    return bytes(files["zarr.json"].to_bytes())


# -- files ---------------------------------------------------------------------------------------


def _commit(path: Path, data: codec.Row | bytes) -> None:
    """Put a file in its place, all of it or nothing, even if the power fails."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with open(partial, "xb", buffering=0) as file:
            rest = memoryview(data) if isinstance(data, bytes) else data.data
            while rest:  # Linux writes at most 2 GiB at once
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # an interrupt too must leave no litter
        with suppress(OSError):
            partial.unlink()
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems cannot flush a folder, and need not
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _read(path: Path, ref: CheckpointRef) -> codec.Row:
    with open(path, "rb", buffering=0) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes != ref.n_bytes:  # before any memory is taken for it
            raise codec.wrong_size(path, ref, n_bytes)
        row = np.empty(n_bytes, np.uint8)
        rest = row.data
        while rest and (n_read := file.readinto(rest)):  # Linux reads at most 2 GiB at once
            rest = rest[n_read:]
    if rest:
        raise codec.wrong_size(path, ref, n_bytes - len(rest))
    return row


def _look(path: str, row: int, array: str) -> CheckpointRef:
    with open(path, "rb", buffering=0) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        try:
            trial, resource, crc = codec.identify(file.read(codec.PREAMBLE_BYTES))
        except ValueError:
            trial, resource, crc = -1, -1, 0
    return CheckpointRef(row, trial, resource, array, n_bytes, crc)
