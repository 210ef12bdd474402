"""A store in this process's memory: for simulation, and for tests of what uses a store."""

from __future__ import annotations

import builtins
from typing import Any

from daskhpo.checkpoints import codec
from daskhpo.core.errors import CheckpointMissing
from daskhpo.core.types import CheckpointRef


class MemoryStore:
    """Checkpoints that live as long as this object, with the same meaning as those on disk."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], tuple[CheckpointRef, codec.Row, codec.Layout]] = {}

    def write(self, ref: CheckpointRef, state: Any) -> CheckpointRef:
        """Keep a snapshot of ``state``; return ``ref`` with array, size and checksum."""
        row, layout = codec.encode(state, ref.trial, ref.resource)
        done = codec.complete(ref, row, layout)
        self._rows[done.array, done.row] = done, row, layout
        return done

    def read(self, ref: CheckpointRef) -> Any:
        """Return the state; `CheckpointMissing` or `CheckpointCorrupt` if it is not as written."""
        try:
            _, row, layout = self._rows[ref.array, ref.row]
        except KeyError:
            raise CheckpointMissing(codec.absent("memory", ref)) from None
        codec.verify(row, ref, f"memory, row {ref.row}")
        return codec.decode(row.copy(), layout)  # a copy: what is read may be written to

    def delete(self, ref: CheckpointRef) -> None:
        """Forget a row, in every array if ``ref.array`` is empty; fine if it is not there."""
        for array, row in list(self._rows):
            if row == ref.row and ref.array in ("", array):
                self._rows.pop((array, row), None)

    def clean(self) -> int:
        """Remove what interrupted writers left: nothing, here."""
        return 0

    def list(self) -> builtins.list[CheckpointRef]:
        """Return what is stored, by row."""
        refs = [ref for ref, _, _ in builtins.list(self._rows.values())]
        return sorted(refs, key=lambda ref: (ref.row, ref.array))
