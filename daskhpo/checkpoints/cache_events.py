"""Cache events and the queue that delivers them."""

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
    """A state is in the store, and may still be in memory. ``ref`` is complete."""

    ref: CheckpointRef
    attempt: int


@dataclass(frozen=True, slots=True)
class StateEvicted:
    """A written state (`StateWritten`) was removed from memory. ``ref`` is complete."""

    ref: CheckpointRef
    attempt: int


@dataclass(frozen=True, slots=True)
class StateDropped:
    """A state was removed from memory without a write from this cache."""

    ref: CheckpointRef
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """A write failed and will be retried; the state is still in memory.

    Sent only after the first failure of each checkpoint.
    """

    ref: CheckpointRef
    attempt: int
    error: str


CacheEvent = StateWritten | StateEvicted | StateDropped | WriteFailed


class Outbox:
    """A queue of events, delivered one at a time and in order, by any thread.

    Parameters
    ----------
    tell : callback for each event, called without the lock.
    changed : condition whose lock protects the outbox; notified when all events are delivered.
    """

    def __init__(self, tell: Callable[[CacheEvent], None], changed: threading.Condition) -> None:
        self._tell, self._changed = tell, changed
        self._events: deque[CacheEvent] = deque()
        self._deliverer: threading.Thread | None = None

    def put(self, note: CacheEvent) -> None:
        """Add an event for the next `deliver`. Call with the lock held."""
        self._events.append(note)

    @property
    def is_delivered(self) -> bool:
        """True if all events have been delivered. Read with the lock held."""
        return not self._events and self._deliverer is None

    @property
    def is_delivering_here(self) -> bool:
        """True if the current thread is delivering an event."""
        return self._deliverer is threading.current_thread()

    def deliver(self) -> None:
        """Deliver all events, unless another thread already does. Call without the lock."""
        with self._changed:
            if self._deliverer is not None:  # that thread delivers ours as well, in order
                return
            self._deliverer = threading.current_thread()
        while True:
            with self._changed:
                if not self._events:
                    self._deliverer = None
                    self._changed.notify_all()
                    return
                event = self._events.popleft()
            try:
                self._tell(event)
            except Exception:
                logger.exception("could not deliver %s", event)
            except BaseException:  # Ctrl-C: the next call delivers the rest
                with self._changed:
                    self._deliverer = None
                raise
