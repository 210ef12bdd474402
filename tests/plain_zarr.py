"""Stores as zarr alone sees them, and rows as only older versions of daskhpo wrote them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from daskhpo.checkpoints import ZarrStore, codec
from daskhpo.core.types import CheckpointRef


def stores_in(folder: Path) -> Iterator[Path]:
    """Find the groups of checkpoint stores in a folder, at any depth."""
    for path in folder.rglob("zarr.json"):
        try:
            metadata = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(metadata, dict) and metadata.get("node_type") == "group":
            yield path.parent


def check(path: Path) -> int:
    """Check that zarr alone lists the arrays of a store and reads its rows; return their number.

    A row that a test has damaged, by the checksum in its file, is not compared.
    """
    with warnings.catch_warnings():
        # unfinished files, and files of others
        warnings.filterwarnings("ignore", message="Object at .* is not recognized")
        arrays = dict(zarr.open_group(path, mode="r").arrays())
    n_rows = 0
    for ref in ZarrStore(path).list():
        try:
            row = np.frombuffer(b"".join(f.read_bytes() for f in files(path, ref)), np.uint8)
        except FileNotFoundError:  # a study that still runs has deleted it
            continue
        row = row[: ref.n_bytes]  # the last of several chunks is padded
        if ref.trial == -1 or codec.checksum(row) != ref.checksum:
            continue
        assert ref.array in arrays, f"zarr does not list {ref.array} of {path}"
        assert np.array_equal(arrays[ref.array][ref.id], row), f"row {ref.id} of {path}"
        n_rows += 1
    return n_rows


def files(path: Path, ref: CheckpointRef) -> list[Path]:
    """Return the chunks of a row in order."""
    chunks = [p for p in (path / ref.array).glob(f"{ref.id}.*") if p.suffix[1:].isdecimal()]
    return sorted(chunks, key=lambda chunk: int(chunk.suffix[1:]))


def encode_state(
    state: Any, trial: int = 0, resource: int = 0
) -> tuple[codec.ByteArray, codec.Layout]:
    """Return a state's row, with its checksum, and its layout."""
    taken = codec.snapshot(state, trial, resource)
    codec.seal([taken.buffer])
    return taken.buffer, taken.layout


def write_in_chunks(
    store: ZarrStore, ref: CheckpointRef, state: Any, n_chunk: int
) -> CheckpointRef:
    """Write a row in several chunks, by zarr; for rows above 1 GiB older versions did so."""
    row, one = encode_state(state, ref.trial, ref.resource)
    layout = codec.Layout.of(one.tree, one.n_header, one.n_bytes, n_chunk)
    with zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.open_group(store.path, mode="a", attributes={"daskhpo": {"format": 1}})
        array = group.require_array(
            layout.name,
            shape=(2**31, layout.n_bytes),
            chunks=(1, n_chunk),
            dtype="uint8",
            compressors=None,
            filters=None,
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "."},
            attributes={"daskhpo": layout.to_json()},
        )
        array[ref.id] = row
    return codec.complete_ref(ref, layout.name, row.nbytes, codec.checksum(row))
