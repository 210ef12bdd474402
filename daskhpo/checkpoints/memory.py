"""A checkpoint store in this process's memory, for simulation and tests."""

from __future__ import annotations

import builtins
from collections.abc import Collection
from typing import Any

from daskhpo.checkpoints import codec
from daskhpo.checkpoints.zarr import CleanupResult
from daskhpo.core.errors import CheckpointMissing
from daskhpo.core.types import CheckpointRef


class MemoryStore:
    """Checkpoints in memory, as long as this object exists; behaves like `ZarrStore`."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], tuple[CheckpointRef, codec.Snapshot]] = {}

    def prepare(self) -> None:
        """Do nothing: nothing must be loaded."""

    def write(self, ref: CheckpointRef, state: Any) -> CheckpointRef:
        """Keep a snapshot of ``state``; return ``ref`` with array, size and checksum."""
        return self._keep(ref, codec.snapshot(state, ref.trial, ref.resource))

    def write_snapshot(self, ref: CheckpointRef, snapshot: codec.Snapshot) -> CheckpointRef:
        """Keep a copy of a snapshot; return ``ref`` with array, size and checksum."""
        codec.check_owner(ref, snapshot)
        return self._keep(ref, codec.Snapshot(snapshot.buffer.copy(), snapshot.layout))

    def read(self, ref: CheckpointRef) -> Any:
        """Return the state.

        Raises `CheckpointMissing` or `CheckpointCorrupt` unless the row is as it was written.
        """
        self.verify(ref)
        _, snapshot = self._rows[ref.array, ref.id]
        return codec.restore(snapshot)

    def verify(self, ref: CheckpointRef) -> None:
        """Raise `CheckpointMissing` or `CheckpointCorrupt` unless the row is as written."""
        try:
            _, snapshot = self._rows[ref.array, ref.id]
        except KeyError:
            raise CheckpointMissing(codec.missing_message("memory", ref)) from None
        codec.verify(snapshot.buffer, ref, f"memory, row {ref.id}")

    def share(self, ref: CheckpointRef, other: MemoryStore) -> None:
        """Add a row to another store as well, without copying bytes."""
        self.verify(ref)
        other._rows[ref.array, ref.id] = self._rows[ref.array, ref.id]

    def delete(self, ref: CheckpointRef) -> None:
        """Remove a row, if it exists; from all arrays if ``ref.array`` is empty."""
        for array, row in list(self._rows):
            if row == ref.id and ref.array in ("", array):
                self._rows.pop((array, row), None)

    def clean(self, keep: Collection[CheckpointRef] | None = None) -> CleanupResult:
        """Remove all rows that are not in ``keep``; None: remove none. Return the amount."""
        cleaned = CleanupResult()
        places = None if keep is None else {(ref.array, ref.id) for ref in keep}
        for place, (ref, _) in list(self._rows.items()):
            if places is not None and place not in places:
                del self._rows[place]
                cleaned += CleanupResult(1, ref.n_bytes)
        return cleaned

    def list(self) -> builtins.list[CheckpointRef]:
        """Return the references of all rows, sorted by checkpoint id."""
        refs = [ref for ref, _ in builtins.list(self._rows.values())]
        return sorted(refs, key=lambda ref: (ref.id, ref.array))

    def _keep(self, ref: CheckpointRef, snapshot: codec.Snapshot) -> CheckpointRef:
        checksum = codec.seal([snapshot.buffer])
        done = codec.complete_ref(ref, snapshot.layout.name, snapshot.n_bytes, checksum)
        self._rows[done.array, done.id] = done, snapshot
        return done
