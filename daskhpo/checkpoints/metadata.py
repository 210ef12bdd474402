"""Metadata files that make a folder of rows a zarr group.

They are as zarr itself would write them (version 3 of its specification). The attributes of an
array hold its layout.
"""

from __future__ import annotations

import json
from pathlib import Path

from daskhpo.checkpoints.codec import ROW_FORMAT, Layout

METADATA_FILE = "zarr.json"
MAX_ROWS = 2**31
UNREADABLE = (OSError, ValueError, KeyError, TypeError)  # errors of `read_layout`


def read_layout(path: Path) -> Layout:
    """Read the layout of an array from its metadata file."""
    return Layout.from_json(json.loads(path.read_bytes())["attributes"]["daskhpo"])


def array_metadata(layout: Layout) -> bytes:
    """Return the metadata of the array for rows of a layout."""
    metadata = {
        "shape": [MAX_ROWS, layout.n_bytes],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, layout.n_chunk]}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "attributes": {"daskhpo": layout.to_json()},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return json.dumps(metadata).encode()


def group_metadata() -> bytes:
    """Return the metadata of a store's group."""
    attributes = {"daskhpo": {"format": ROW_FORMAT}}
    metadata = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    return json.dumps(metadata).encode()
