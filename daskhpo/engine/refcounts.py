"""Reference counts of checkpoints: which are in use, cached or committed."""

from __future__ import annotations

from dataclasses import dataclass, field

from daskhpo.core.types import CheckpointRef, Trial, TrialId


@dataclass(slots=True)
class _Entry:
    ref: CheckpointRef  # complete once it is committed
    is_held: bool
    users: set[TrialId] = field(default_factory=set)


class CheckpointRefs:
    """Reference counts: each checkpoint with the trials that refer to it.

    Unreferenced checkpoints are dropped; later messages about them come from stale attempts.
    """

    def __init__(self) -> None:
        self.n_allocated = 0  #: ids allocated so far
        self.n_bytes = self.n_files = 0  #: of committed checkpoints
        self._entries: dict[int, _Entry] = {}
        self._unsaved: set[int] = set()

    def allocate(self, trial: Trial) -> CheckpointRef:
        """Return a reference with a new id, for the trial's current state."""
        self.n_allocated += 1
        return CheckpointRef(self.n_allocated - 1, trial.id, trial.resource)

    def __contains__(self, row: int) -> bool:
        return row in self._entries

    def is_committed(self, row: int) -> bool:
        """Return True if a checkpoint is in the store."""
        return row in self._entries and bool(self._entries[row].ref.array)

    def is_unshared(self, ref: CheckpointRef | None) -> bool:
        """Return True unless several trials refer to a checkpoint."""
        return ref is None or len(self._entries[ref.id].users) == 1

    @property
    def n_unsaved(self) -> int:
        """Number of checkpoints that exist in a worker's memory only."""
        return len(self._unsaved)

    @property
    def committed(self) -> list[CheckpointRef]:
        """Checkpoints in the store."""
        return [entry.ref for entry in self._entries.values() if entry.ref.array]

    @property
    def ids(self) -> list[int]:
        """Ids of all referenced checkpoints."""
        return list(self._entries)

    def users(self, row: int) -> list[TrialId]:
        """Return the trials that refer to a checkpoint, sorted."""
        return sorted(self._entries[row].users) if row in self._entries else []

    def add_ref(self, trial: TrialId, ref: CheckpointRef, *, held: bool) -> None:
        """Let a trial refer to a checkpoint that is held or committed."""
        entry = self._entries.get(ref.id)
        if entry is None:
            entry = self._entries[ref.id] = _Entry(ref, held)
            self._count(ref, 1)
        elif ref.array and not entry.ref.array:
            entry.ref = ref
            self._count(ref, 1)
        entry.users.add(trial)
        self._update_unsaved(ref.id, entry)

    def release(self, trial: TrialId, ref: CheckpointRef) -> CheckpointRef | None:
        """Remove a trial's reference; return the checkpoint if it was the last one."""
        entry = self._entries[ref.id]
        entry.users.discard(trial)
        if entry.users:
            return None
        del self._entries[ref.id]
        self._unsaved.discard(ref.id)
        self._count(entry.ref, -1)
        return entry.ref

    def drop(self, number: int) -> None:
        """Register that a checkpoint is no longer held."""
        if (entry := self._entries.get(number)) is not None:
            entry.is_held = False
            self._update_unsaved(number, entry)

    def _update_unsaved(self, number: int, entry: _Entry) -> None:
        if entry.is_held and not entry.ref.array:
            self._unsaved.add(number)
        else:
            self._unsaved.discard(number)

    def _count(self, ref: CheckpointRef, sign: int) -> None:
        if ref.array:
            self.n_bytes += sign * ref.n_bytes
            self.n_files += sign
