"""Which slots hold which states, as the study has been told."""

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
    n_notes: int = 0  # taken in
    newest: int = -1  # row; a slot gets ever higher ones
    early: list[tuple[str, str]] = field(default_factory=list)  # notes of a row not said to be held
    rows: dict[int, tuple[TrialId, int]] = field(default_factory=dict)  # trial, attempt


class StateLocations:
    """Rows by the slot that holds them, and what becomes of them as events."""

    def __init__(self) -> None:
        self._slots: dict[int, _SlotStates] = {}
        self._home: dict[int, int] = {}

    def open(self, slot: int) -> None:
        """There is a new slot, which holds nothing."""
        self._slots[slot] = _SlotStates()

    def add(self, slot: int, ref: CheckpointRef, attempt: int, at: float) -> list[Event]:
        """The slot holds a state; what its notes said of it before follows now."""
        known = self._slots[slot]
        known.newest = ref.id
        known.rows[ref.id] = ref.trial, attempt
        self._home[ref.id] = slot
        early, known.early = known.early, []
        return [self._event(ref, attempt, kind, text, at) for kind, text in early]

    def who_has(self, ref: CheckpointRef | None) -> int | None:
        """The slot that holds a state."""
        return None if ref is None else self._home.get(ref.id)

    def held_by(self, slot: int) -> list[int]:
        """What a slot holds."""
        return list(self._slots[slot].rows)

    def discard(self, ref: CheckpointRef) -> int | None:
        """Nobody needs the state; the slot that holds it, if one does."""
        if (slot := self._home.pop(ref.id, None)) is not None:
            del self._slots[slot].rows[ref.id]
        return slot

    def apply_notes(self, slot: int, notes: Iterable[StateNote], at: float) -> list[Event]:
        """What a slot says of its states; each note may come twice, or when the slot is gone."""
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
        """The slot holds nothing any more."""
        held, self._slots[slot].rows = self._slots[slot].rows, {}
        for row in held:
            del self._home[row]
        return [Dropped(trial, attempt, row, reason, at) for row, (trial, attempt) in held.items()]

    def close(self, slot: int, reason: str, at: float) -> list[Event]:
        """The slot is no more."""
        events = self.empty(slot, reason, at)
        del self._slots[slot]
        return events
