"""Slots and the states that they hold, as the leases have reported."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from daskhpo.core.events import Dropped, Saved, SaveFailed
from daskhpo.core.types import CheckpointRef
from daskhpo.executors.dask.protocol import Note, StateEvent, arrived

logger = logging.getLogger("daskhpo")


@dataclass(slots=True)
class _SlotStates:
    n_notes: int = 0  # number of the last note that was applied
    newest: int = -1  # checkpoint id; the ids that a slot gets increase
    early: list[SaveFailed | Dropped] = field(default_factory=list)  # notes ahead of "held"
    held: dict[int, tuple[CheckpointRef, int]] = field(default_factory=dict)  # with its attempt


class StateLocations:
    """Checkpoints by the slot that holds them, and their newest references.

    It makes events of the slots' notes.
    """

    def __init__(self) -> None:
        self._slots: dict[int, _SlotStates] = {}
        self._home: dict[int, int] = {}
        self._saved: dict[int, CheckpointRef] = {}  # committed in this session, until deleted

    def open(self, slot: int) -> None:
        """Add a slot that holds nothing."""
        self._slots[slot] = _SlotStates()

    def add(self, slot: int, ref: CheckpointRef, attempt: int, at: float) -> list[StateEvent]:
        """Record that a slot holds a state; return the events of earlier notes on it."""
        known = self._slots[slot]
        known.newest = ref.id
        known.held[ref.id] = ref, attempt
        self._home[ref.id] = slot
        early, known.early = known.early, []
        return [self._applied(event, at) for event in early]

    def who_has(self, ref: CheckpointRef | None) -> int | None:
        """Return the slot that holds a state, or None."""
        return None if ref is None else self._home.get(ref.id)

    def held_by(self, slot: int) -> list[int]:
        """List the ids of the checkpoints that a slot holds."""
        return list(self._slots[slot].held)

    def unsaved(self, slot: int) -> list[CheckpointRef]:
        """List the checkpoints that exist only in a slot's memory."""
        return [ref for ref, _ in self._slots[slot].held.values() if ref.id not in self._saved]

    def newest(self, ref: CheckpointRef) -> CheckpointRef:
        """Return the reference to the same checkpoint, complete if it was saved since."""
        return self._saved.get(ref.id, ref)

    def discard(self, ref: CheckpointRef) -> int | None:
        """Remove a checkpoint that is not needed; return the slot that holds it, or None."""
        self._saved.pop(ref.id, None)
        return self._remove(ref.id)

    def apply_notes(self, slot: int, notes: Iterable[Note], at: float) -> list[StateEvent]:
        """Make events of notes; a note may arrive twice, or after its slot is gone."""
        events: list[StateEvent] = []
        known = self._slots.get(slot)
        for note in notes:
            if known is not None:
                if note.number <= known.n_notes:
                    continue
                known.n_notes = note.number
            match note.event:
                case Saved(_, _, ref) as saved:
                    self._saved[ref.id] = ref
                    events.append(arrived(saved, at))
                case event if known is not None and event.checkpoint_id > known.newest:
                    known.early.append(event)
                case SaveFailed() as failed:
                    events.append(self._applied(failed, at))
                case Dropped(_, _, checkpoint_id) as dropped:
                    if self._home.get(checkpoint_id) == slot:
                        events.append(self._applied(dropped, at))
        return events

    def empty(self, slot: int, reason: str, at: float) -> list[Dropped]:
        """Remove all states of a slot; return the events."""
        held, self._slots[slot].held = self._slots[slot].held, {}
        for number in held:
            del self._home[number]
        return [Dropped(ref.trial, attempt, ref.id, reason, at) for ref, attempt in held.values()]

    def close(self, slot: int, reason: str, at: float) -> list[Dropped]:
        """Remove a slot with its states; return the events."""
        events = self.empty(slot, reason, at)
        del self._slots[slot]
        return events

    def _applied(self, event: SaveFailed | Dropped, at: float) -> StateEvent:
        match event:
            case SaveFailed(error=error):
                logger.warning("%s", error)
            case Dropped(checkpoint_id=checkpoint_id):
                self._remove(checkpoint_id)
        return arrived(event, at)

    def _remove(self, checkpoint_id: int) -> int | None:
        if (slot := self._home.pop(checkpoint_id, None)) is not None:
            del self._slots[slot].held[checkpoint_id]
        return slot
