"""A worker's states in memory, written to the store when that is worth its time.

`StateCache` is a write-back cache. What to write, evict and drop is decided in pure code, by
`daskhpo.checkpoints.cache_state.CacheState`. Here are the lock, the clock, the thread that writes,
and the delivery of events.

One thread writes, so training continues meanwhile and ``put`` never waits for a disk. Do not lower
the thread's priority: it would be descheduled while holding the GIL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from daskhpo.checkpoints.cache_protocol import (
    BufferWanted,
    CacheAction,
    CacheEvent,
    ClearRequested,
    CloseRequested,
    Discarded,
    FlushRequested,
    Lend,
    Notify,
    Settle,
    StagingFailed,
    StartStaging,
    StartWrite,
    StatePut,
    StateStaged,
    Tick,
    Unlink,
    WriteFailed,
    WriteFinished,
    WriteRequested,
)
from daskhpo.checkpoints.cache_state import CachedState, CacheState
from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.staging import Staging
from daskhpo.checkpoints.tree import ByteArray
from daskhpo.core.events import Dropped, Saved, SaveFailed
from daskhpo.core.types import CheckpointRef, ReuseProbability

logger = logging.getLogger("daskhpo")

TICK_SECONDS = 1.0  # between two checks of the job's remaining time, and of delayed writes


class SnapshotStore(Protocol):
    """A store that states are written to."""

    def write_snapshot(self, ref: CheckpointRef, snapshot: Snapshot) -> CheckpointRef:
        """Write a snapshot durably; return the complete reference. Raises OSError."""


class StateCache:
    """States of one worker process, by the checkpoint ids from the coordinator.

    All methods may be called from any thread. Only `flush`, `clear` and `close` wait for the disk.

    Parameters
    ----------
    store : the store to write to.
    tell : callback for events, called with one event at a time, in order, from any thread. It must
        return soon, and must not call `flush`, `clear` or `close`. `Notify` says what the events
        mean; their ``seconds`` are of this process's clock.
    capacity : bytes of memory for states and buffers; see `CacheState`.
    durability : see `should_write`.
    staging : folder on a local disk; None: no staging. Queued states are moved there first, which
        frees their memory, and are copied to the store from there. Files of written states may
        stay until eviction, up to ``capacity`` bytes.
    seconds_left : returns the seconds until the job ends; None: no end. Called about once a second
        while any state is held. Shortly before the end all states that are worth a write are
        written; they stay in memory.
    """

    def __init__(
        self,
        store: SnapshotStore,
        tell: Callable[[Saved | SaveFailed | Dropped], None],
        *,
        capacity: int,
        durability: float = 100.0,
        staging: Path | None = None,
        seconds_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._state = CacheState(capacity, durability, staging=staging is not None)
        self._lock = threading.Lock()  # of the state; its actions are passed on in order
        self._store, self._tell, self._seconds_left = store, tell, seconds_left
        self._outbox: deque[Notify | Settle] = deque()
        self._delivery = threading.Lock()
        self._deliverer: threading.Thread | None = None
        self._numbers = count()  # of flushes, and the like
        self._settled: dict[int, threading.Event] = {}
        self._jobs: SimpleQueue[StartWrite | StartStaging | Unlink | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._staging_folder = staging
        self._staging: Staging | None = None  # of the writer thread, from its first use
        self._has_warned = False

    # -- calls by the training thread and for the coordinator ------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory in use, buffers included."""
        with self._lock:
            return self._state.n_bytes

    @property
    def ids(self) -> list[int]:
        """Ids of the checkpoints that are held, oldest first."""
        with self._lock:
            return self._state.ids

    def flush_seconds(self) -> float:
        """Return the expected seconds of the writes due before the worker ends."""
        with self._lock:
            return self._state.flush_seconds()

    def take_buffer(self, n_bytes: int) -> ByteArray | None:
        """Return the memory of a former entry for the next snapshot, or None.

        To make room, removes states that are unlikely to be needed again and need no write.
        """
        for action in self._handle(BufferWanted(n_bytes)):
            if isinstance(action, Lend):
                return action.buffer
        return None

    def put(
        self,
        ref: CheckpointRef,
        attempt: int,
        snapshot: Snapshot,
        probability: ReuseProbability,
        unsaved_seconds: float,
    ) -> None:
        """Hold a state. The caller must not use the snapshot's buffer afterwards.

        Parameters
        ----------
        unsaved_seconds : seconds of training that are lost with the state: since the trial's last
            committed checkpoint, or since its start.

        Raises
        ------
        ValueError
            The checkpoint is held already.
        """
        self._handle(StatePut(ref, attempt, snapshot, probability, unsaved_seconds))
        if self._writer is None:
            self._start_writer()

    def get(self, checkpoint_id: int) -> CachedState | None:
        """Return a state, or None if it is not held. The state stays in the cache."""
        with self._lock:
            return self._state.get(checkpoint_id)

    def write(self, checkpoint_id: int) -> None:
        """Queue a state for writing, whatever the cost; does nothing if it is not held."""
        self._handle(WriteRequested(checkpoint_id))

    def discard(self, checkpoint_id: int) -> None:
        """Remove a state that is no longer needed; does nothing if it is not held.

        Sends no event, with one exception: a write that has begun still sends `Saved` if it
        succeeds. The caller must then delete the row from the store.
        """
        self._handle(Discarded(checkpoint_id))

    def flush(self) -> None:
        """Write all states worth a write, and wait; they stay in memory.

        Returns when each write has succeeded or failed, and all events so far are delivered.
        """
        self._wait_for(FlushRequested(next(self._numbers)))

    def clear(self, *, write: bool) -> None:
        """Remove all states from memory, and wait.

        Returns when no state is held or being written, and all events so far are delivered.

        Parameters
        ----------
        write : True: first write the states worth a write; those whose write fails twice are
            dropped. False: drop all that are not written.
        """
        self._wait_for(ClearRequested(next(self._numbers), write))

    def close(self) -> None:
        """Clear with writing, end the thread and remove the staging folder; idempotent."""
        self._wait_for(CloseRequested(next(self._numbers)))
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join()

    # -- from events to actions ------------------------------------------------------------------

    def _handle(self, event: CacheEvent) -> list[CacheAction]:
        with self._lock:
            actions = self._state.handle(event, time.monotonic())
            for action in actions:
                match action:
                    case Notify() | Settle():
                        self._outbox.append(action)
                    case StartWrite() | StartStaging() | Unlink():
                        self._jobs.put(action)
        self._deliver()
        return actions

    def _deliver(self) -> None:
        """Deliver all events, in order, unless another thread already does."""
        while self._outbox and self._delivery.acquire(blocking=False):
            self._deliverer = threading.current_thread()
            try:
                while self._outbox:
                    match self._outbox.popleft():
                        case Notify(event):
                            try:
                                self._tell(event)
                            except Exception:
                                logger.exception("could not deliver %s", event)
                        case Settle(number):  # all events before it are delivered
                            self._settled.pop(number).set()
            finally:  # after Ctrl-C, the next call delivers the rest
                self._deliverer = None
                self._delivery.release()

    def _wait_for(self, request: FlushRequested | ClearRequested | CloseRequested) -> None:
        if threading.current_thread() in (self._deliverer, self._writer):
            raise RuntimeError(
                "tell must not call flush, clear or close: they wait until tell has all events"
            )
        settled = self._settled[request.number] = threading.Event()
        self._handle(request)
        settled.wait()

    # -- the writer thread -----------------------------------------------------------------------

    def _start_writer(self) -> None:
        with self._lock:
            if self._writer is None and not self._state.is_closed:
                self._writer = threading.Thread(
                    target=self._write_all, name="daskhpo-writer", daemon=True
                )
                self._writer.start()

    def _write_all(self) -> None:
        next_tick = time.monotonic()
        while True:
            if time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + TICK_SECONDS  # seconds_left may be slow
            with suppress(Empty):
                timeout = max(0.0, next_tick - time.monotonic())
                if (job := self._jobs.get(timeout=timeout)) is None:
                    break
                self._perform(job)
                del job  # do not keep a state's memory while waiting
        if self._staging is not None:
            self._staging.close()

    def _perform(self, job: StartWrite | StartStaging | Unlink) -> None:
        match job:
            case StartStaging(snapshot):
                self._handle(self._stage(snapshot))
            case StartWrite(ref, snapshot):
                self._handle(self._write(ref, snapshot))
            case Unlink(file):
                with suppress(OSError):  # it is removed with its folder later
                    file.unlink()

    def _stage(self, snapshot: Snapshot) -> StateStaged | StagingFailed:
        assert self._staging_folder is not None, "a state is to be staged, but there is no folder"
        try:
            if self._staging is None:
                self._staging = Staging(self._staging_folder)
            return StateStaged(*self._staging.put(snapshot))
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("states are written to the store without staging: %s", error)
            return StagingFailed()

    def _write(self, ref: CheckpointRef, snapshot: Snapshot) -> WriteFinished | WriteFailed:
        began = time.perf_counter()
        try:
            complete = self._store.write_snapshot(ref, snapshot)
        except Exception as error:
            if not isinstance(error, OSError):
                logger.exception("unexpected error while writing a state")
            return WriteFailed(f"{type(error).__name__}: {error}")
        return WriteFinished(complete, time.perf_counter() - began)

    def _tick(self) -> None:
        if not self.ids:
            return
        try:
            left = self._seconds_left()
        except Exception:
            logger.exception("seconds_left failed; states may be lost when the job ends")
            self._seconds_left, left = lambda: None, None
        self._handle(Tick(left))
