"""Checkpoint rows: who refers to each, and where it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from daskhpo.core.types import CheckpointRef, Trial, TrialId


@dataclass(slots=True)
class _Entry:
    ref: CheckpointRef  # complete once it is committed
    is_held: bool
    users: set[TrialId] = field(default_factory=set)


class CheckpointRefs:
    """Counts who refers to each checkpoint row, so that it goes when the last one lets go of it.

    A row without users is forgotten: what is later heard of it comes from the dead.
    """

    def __init__(self) -> None:
        self.n_allocated = 0  #: rows given out so far
        self.n_bytes = self.n_files = 0  #: of committed rows
        self._entries: dict[int, _Entry] = {}
        self._unsaved: set[int] = set()

    def allocate(self, trial: Trial) -> CheckpointRef:
        """A row that no one else writes, for the trial's present state."""
        self.n_allocated += 1
        return CheckpointRef(self.n_allocated - 1, trial.id, trial.resource)

    def __contains__(self, row: int) -> bool:
        return row in self._entries

    def is_committed(self, row: int) -> bool:
        """Whether a row lies in the store."""
        return row in self._entries and bool(self._entries[row].ref.array)

    def is_unshared(self, ref: CheckpointRef | None) -> bool:
        """Whether no two trials refer to a row."""
        return ref is None or len(self._entries[ref.id].users) == 1

    @property
    def n_unsaved(self) -> int:
        """Rows that exist in a worker's memory only."""
        return len(self._unsaved)

    @property
    def committed(self) -> list[CheckpointRef]:
        """Rows that lie in the store."""
        return [row.ref for row in self._entries.values() if row.ref.array]

    @property
    def ids(self) -> list[int]:
        """All rows that somebody refers to."""
        return list(self._entries)

    def users(self, row: int) -> list[TrialId]:
        """The trials that refer to a row."""
        return sorted(self._entries[row].users) if row in self._entries else []

    def add_ref(self, trial: TrialId, ref: CheckpointRef, *, held: bool) -> None:
        """A trial refers to a row that is held, or that is committed."""
        row = self._entries.get(ref.id)
        if row is None:
            row = self._entries[ref.id] = _Entry(ref, held)
            self._count(ref, 1)
        elif ref.array and not row.ref.array:
            row.ref = ref
            self._count(ref, 1)
        row.users.add(trial)
        self._update_unsaved(ref.id, row)

    def release(self, trial: TrialId, ref: CheckpointRef) -> CheckpointRef | None:
        """The trial refers to the row no more; the row, if nobody does."""
        row = self._entries[ref.id]
        row.users.discard(trial)
        if row.users:
            return None
        del self._entries[ref.id]
        self._unsaved.discard(ref.id)
        self._count(row.ref, -1)
        return row.ref

    def drop(self, number: int) -> None:
        """The row is held no more."""
        if (row := self._entries.get(number)) is not None:
            row.is_held = False
            self._update_unsaved(number, row)

    def _update_unsaved(self, number: int, row: _Entry) -> None:
        if row.is_held and not row.ref.array:
            self._unsaved.add(number)
        else:
            self._unsaved.discard(number)

    def _count(self, ref: CheckpointRef, sign: int) -> None:
        if ref.array:
            self.n_bytes += sign * ref.n_bytes
            self.n_files += sign
