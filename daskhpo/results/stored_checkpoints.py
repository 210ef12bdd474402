"""The checkpoints of a study: those in its store, and how many were written."""

from __future__ import annotations

from daskhpo.core.types import CheckpointRef


class StoredCheckpoints:
    """Checkpoints that were written, and those that are in the store now.

    Attributes
    ----------
    refs : checkpoints in the store, by id.
    n_bytes : bytes in the store.
    n_written, n_bytes_written : number and bytes of all checkpoints written so far.
    max_files, max_bytes : maximum in the store at one time.
    """

    def __init__(self) -> None:
        self.refs: dict[int, CheckpointRef] = {}
        self.n_bytes = self.n_written = self.n_bytes_written = 0
        self.max_files = self.max_bytes = 0

    def add(self, ref: CheckpointRef) -> None:
        """Add a checkpoint that was written."""
        self.refs[ref.id] = ref
        self.n_bytes += ref.n_bytes
        self.n_written += 1
        self.n_bytes_written += ref.n_bytes
        self.max_files = max(self.max_files, len(self.refs))
        self.max_bytes = max(self.max_bytes, self.n_bytes)

    def remove(self, checkpoint_id: int) -> CheckpointRef:
        """Remove a checkpoint that was deleted, and return it."""
        ref = self.refs.pop(checkpoint_id)
        self.n_bytes -= ref.n_bytes
        return ref

    def newest_of(self, trial: int) -> CheckpointRef | None:
        """Return the newest checkpoint in the store of a trial's own states, or None."""
        own = [ref for ref in self.refs.values() if ref.trial == trial]
        return max(own, key=lambda ref: ref.id, default=None)
