"""Checkpoints: states of trials, as rows in a store that any zarr reader opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daskhpo._lazy import lazy

if TYPE_CHECKING:
    from daskhpo.checkpoints.codec import Snapshot, restore, snapshot
    from daskhpo.checkpoints.memory import MemoryStore
    from daskhpo.checkpoints.zarr import CleanupResult, ZarrStore
    from daskhpo.core.types import CheckpointPolicy

__all__ = [
    "CheckpointPolicy",
    "CleanupResult",
    "MemoryStore",
    "Snapshot",
    "ZarrStore",
    "restore",
    "snapshot",
]

STORE = "checkpoints.zarr"  # a study's store, in its directory

__getattr__, __dir__ = lazy(
    __name__,
    {
        "CheckpointPolicy": "daskhpo.core.types",
        "CleanupResult": "daskhpo.checkpoints.zarr",
        "Snapshot": "daskhpo.checkpoints.codec",
        "restore": "daskhpo.checkpoints.codec",
        "snapshot": "daskhpo.checkpoints.codec",
        "MemoryStore": "daskhpo.checkpoints.memory",
        "ZarrStore": "daskhpo.checkpoints.zarr",
    },
)


def open_store(directory: Path) -> ZarrStore:
    """Return the store of the study in ``directory``; the first write creates it."""
    from daskhpo.checkpoints.zarr import ZarrStore

    return ZarrStore(directory / STORE)
