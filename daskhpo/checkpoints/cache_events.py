"""What becomes of a worker's states, as notes, and the one who is told them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from daskhpo.core.types import CheckpointRef

logger = logging.getLogger("daskhpo")


@dataclass(frozen=True, slots=True)
class StateWritten:
    """A state is committed to the store; ``ref`` is complete. It may still be in memory."""

    ref: CheckpointRef
    attempt: int


@dataclass(frozen=True, slots=True)
class StateEvicted:
    """A state that was written (`StateWritten`) is not in memory any more; ``ref`` is complete."""

    ref: CheckpointRef
    attempt: int


@dataclass(frozen=True, slots=True)
class StateDropped:
    """A state is not in memory any more and was not written from here."""

    ref: CheckpointRef
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """A write failed; the state is still in memory and is tried again. Told once for each row."""

    ref: CheckpointRef
    attempt: int
    error: str


CacheEvent = StateWritten | StateEvicted | StateDropped | WriteFailed


class Outbox:
    """Notes on their way: told one at a time and in order, from whichever thread comes first.

    Parameters
    ----------
    tell : is given each note, without the lock.
    changed : the condition whose lock protects the outbox; notified when all is told.
    """

    def __init__(self, tell: Callable[[CacheEvent], None], changed: threading.Condition) -> None:
        self._tell, self._changed = tell, changed
        self._events: deque[CacheEvent] = deque()
        self._deliverer: threading.Thread | None = None

    def put(self, note: CacheEvent) -> None:
        """Have a note told by the next `deliver`; with the lock held."""
        self._events.append(note)

    @property
    def is_delivered(self) -> bool:
        """Whether all notes have been told; with the lock held."""
        return not self._events and self._deliverer is None

    @property
    def is_delivering_here(self) -> bool:
        """Whether this thread is just telling a note."""
        return self._deliverer is threading.current_thread()

    def deliver(self) -> None:
        """Tell what is there, or leave that to the thread that is about it; without the lock."""
        with self._changed:
            if self._deliverer is not None:  # who tells now goes on with ours, in their turn
                return
            self._deliverer = threading.current_thread()
        while True:
            with self._changed:
                if not self._events:
                    self._deliverer = None
                    self._changed.notify_all()
                    return
                note = self._events.popleft()
            try:
                self._tell(note)
            except Exception:
                logger.exception("nobody could be told %s", note)
            except BaseException:  # Ctrl-C: the next one who comes tells the rest
                with self._changed:
                    self._deliverer = None
                raise
