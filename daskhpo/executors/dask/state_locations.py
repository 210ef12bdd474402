"""Slots and the states that they hold, as the leases have reported."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from daskhpo.core.events import Dropped, Event, Saved, SaveFailed
from daskhpo.core.types import CheckpointRef, TrialId
from daskhpo.executors.dask.client import StateNote

logger = logging.getLogger("daskhpo")


@dataclass(slots=True)
class _SlotStates:
    n_notes: int = 0  # number of the last note that was applied
    newest: int = -1  # checkpoint id; the ids that a slot gets increase
    early: list[tuple[str, str]] = field(default_factory=list)  # notes that came before "held"
    rows: dict[int, tuple[TrialId, int]] = field(default_factory=dict)  # id: (trial, attempt)


class StateLocations:
    """Checkpoints by the slot that holds them; makes events of the slots' notes."""

    def __init__(self) -> None:
        self._slots: dict[int, _SlotStates] = {}
        self._home: dict[int, int] = {}

    def open(self, slot: int) -> None:
        """Add a slot that holds nothing."""
        self._slots[slot] = _SlotStates()

    def add(self, slot: int, ref: CheckpointRef, attempt: int, at: float) -> list[Event]:
        """Record that a slot holds a state; return the events of earlier notes on it."""
        known = self._slots[slot]
        known.newest = ref.id
        known.rows[ref.id] = ref.trial, attempt
        self._home[ref.id] = slot
        early, known.early = known.early, []
        return [self._event(ref, attempt, kind, text, at) for kind, text in early]

    def who_has(self, ref: CheckpointRef | None) -> int | None:
        """Return the slot that holds a state, or None."""
        return None if ref is None else self._home.get(ref.id)

    def held_by(self, slot: int) -> list[int]:
        """List the ids of the checkpoints that a slot holds."""
        return list(self._slots[slot].rows)

    def discard(self, ref: CheckpointRef) -> int | None:
        """Remove a state that is not needed; return the slot that holds it, or None."""
        if (slot := self._home.pop(ref.id, None)) is not None:
            del self._slots[slot].rows[ref.id]
        return slot

    def apply_notes(self, slot: int, notes: Iterable[StateNote], at: float) -> list[Event]:
        """Make events of notes; a note may arrive twice, or after its slot is gone."""
        events: list[Event] = []
        known = self._slots.get(slot)
        for count, kind, attempt, plain, text in notes:
            if known is not None:
                if count <= known.n_notes:
                    continue
                known.n_notes = count
            ref = CheckpointRef(*plain)
            match kind:
                case "saved":
                    events.append(Saved(ref.trial, attempt, ref, at))
                case "unsaved" | "dropped" if known is not None and ref.id > known.newest:
                    known.early.append((kind, text))
                case "unsaved":
                    events.append(self._event(ref, attempt, kind, text, at))
                case "dropped" if self._home.get(ref.id) == slot:
                    events.append(self._event(ref, attempt, kind, text, at))
        return events

    def _event(self, ref: CheckpointRef, attempt: int, kind: str, text: str, at: float) -> Event:
        if kind == "unsaved":
            logger.warning("%s", text)
            return SaveFailed(ref.trial, attempt, ref.id, text, at)
        self.discard(ref)
        return Dropped(ref.trial, attempt, ref.id, text, at)

    def empty(self, slot: int, reason: str, at: float) -> list[Event]:
        """Remove all states of a slot; return the events."""
        held, self._slots[slot].rows = self._slots[slot].rows, {}
        for row in held:
            del self._home[row]
        return [Dropped(trial, attempt, row, reason, at) for row, (trial, attempt) in held.items()]

    def close(self, slot: int, reason: str, at: float) -> list[Event]:
        """Remove a slot with its states; return the events."""
        events = self.empty(slot, reason, at)
        del self._slots[slot]
        return events
