"""A worker's states in memory, written to the store when that is worth its time.

::

    hold ──► DIRTY ─────► QUEUED ────► WRITING ─────► CLEAN ───────► evicted     (WriteState)
               │            │             │             │               │
         StateDropped  StateDropped  WriteFailed  StateWritten    StateEvicted   (CacheEvent)

A dirty state is dropped if memory has no room for it and a write is not worth its time. A queued
state is dropped if memory is full while the disk is slow, or if its write has failed twice while
the cache is emptied. Otherwise a state whose write failed is queued again.

One thread writes, so training continues meanwhile and ``put`` never waits for a disk. Do not lower
the thread's priority: it would be descheduled while holding the GIL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from daskhpo.checkpoints.cache_entries import CacheEntries, CacheEntry, WriteState, lowest_ranked
from daskhpo.checkpoints.cache_events import (
    CacheEvent,
    Outbox,
    StateDropped,
    StateEvicted,
    StateWritten,
    WriteFailed,
)
from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.staging import Staging
from daskhpo.checkpoints.tree import ByteArray
from daskhpo.checkpoints.write_policy import WriteCost, should_write
from daskhpo.core.types import CheckpointRef, ReuseProbability

logger = logging.getLogger("daskhpo")

DEADLINE_CHECK_SECONDS = 1.0  # between two checks of the job's remaining time
WRITE_RETRY_SECONDS = 30.0  # after a failed write
SHUTDOWN_RETRY_SECONDS = 5.0  # the same, shortly before the job ends
# Write all states worth a write when the job has less time left than the larger of these:
SHUTDOWN_SECONDS = 30.0
SHUTDOWN_WRITE_FACTOR = 3.0  # times the expected seconds of all these writes
MAX_OVERRUN = 2  # states above the capacity, while evicted states wait to be written


class SnapshotStore(Protocol):
    """A store that states are written to."""

    def write_snapshot(self, ref: CheckpointRef, snapshot: Snapshot) -> CheckpointRef:
        """Write a snapshot durably; return the complete reference. Raises OSError."""


@dataclass(frozen=True, slots=True, eq=False)
class CachedState:
    """A state to restore here or to send to a peer.

    It is in memory, or mapped from a staging file.

    Attributes
    ----------
    unsaved_seconds : seconds of training that are lost with the state; 0 once it is written.
    """

    snapshot: Snapshot
    unsaved_seconds: float
    is_written: bool


class StateCache:
    """States of one worker process, by the checkpoint ids from the coordinator.

    All methods may be called from any thread. Only `flush` and `close` wait for the disk.

    Parameters
    ----------
    store : the store to write to.
    tell : callback for events, called with one event at a time, in order, from any thread. It must
        return soon, and must not call `flush` or `close`.
    capacity : bytes of memory for states and buffers. Evicted states that wait to be written may
        exceed it by at most twice the size of the largest of them. Beyond that, the one with the
        lowest rank is dropped. Memory that callers of `get` still refer to is not counted.
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
        tell: Callable[[CacheEvent], None],
        *,
        capacity: int,
        durability: float = 100.0,
        staging: Path | None = None,
        seconds_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        if capacity < 0:
            raise ValueError(f"capacity={capacity!r} must be at least 0 bytes")
        if not durability >= 0:
            raise ValueError(f"durability={durability!r} must be at least 0")
        self._store, self._seconds_left = store, seconds_left
        self._durability, self._cost = durability, WriteCost()
        self._entries = CacheEntries(capacity)
        self._thread: threading.Thread | None = None
        self._next_check = 0.0  # monotonic clock; used by the writer thread only
        self._n_flushing = 0  # calls that wait until no state is held
        self._is_closed = False
        self._changed = threading.Condition()
        self._outbox = Outbox(tell, self._changed)
        self._staging: Staging | None = None
        self._has_warned = False
        if staging is not None:
            try:
                self._staging = Staging(staging)
            except OSError as error:
                self._warn_staging_failed(error)

    # -- calls by the training thread and for the coordinator ----------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory in use, buffers included."""
        with self._changed:
            return self._entries.n_bytes

    @property
    def ids(self) -> list[int]:
        """Ids of the checkpoints that are held, oldest first."""
        with self._changed:
            return [entry.ref.id for entry in self._entries]

    def take_buffer(self, n_bytes: int) -> ByteArray | None:
        """Return the memory of a former entry for the next snapshot, or None.

        To make room, removes states that are unlikely to be needed again and need no write.
        """
        with self._changed:
            entries = self._entries
            if self._is_closed or n_bytes > entries.capacity:
                return None
            needless = (
                entry
                for entry in entries.evictable
                if entry.probability is ReuseProbability.UNLIKELY
                and entry.write_state is not WriteState.WRITING
                and (
                    entry.write_state is WriteState.CLEAN
                    or not self._should_write(entry, leaving=True)
                )
            )
            for entry in lowest_ranked(entries.excess(n_bytes), needless):
                self._evict(entry)
            row = entries.take_buffer(n_bytes)
        self._outbox.deliver()
        return row

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
        with self._changed:
            if self._entries.get(ref.id) is not None:
                raise ValueError(
                    f"checkpoint {ref.id!r} is held already; use each checkpoint id only once"
                )
            if self._is_closed:
                self._outbox.put(StateDropped(ref, attempt, "its worker's cache was closed"))
            else:
                self._insert(
                    CacheEntry(
                        ref,
                        attempt,
                        snapshot,
                        probability,
                        unsaved_seconds,
                        needs_staging=self._staging is not None,
                    )
                )
        self._outbox.deliver()

    def get(self, row: int) -> CachedState | None:
        """Return a state, or None if it is not held. The state stays in the cache."""
        with self._changed:
            if (entry := self._entries.get(row)) is None:
                return None
            entry.is_pinned = True
            is_written = entry.write_state is WriteState.CLEAN
            return CachedState(entry.snapshot, entry.unsaved_seconds, is_written)

    def write(self, row: int) -> bool:
        """Queue a state for writing, whatever the cost; return False if it is not held."""
        with self._changed:
            if (entry := self._entries.get(row)) is None:
                return False
            entry.probability = ReuseProbability.CERTAIN
            self._queue_write(entry)
            self._changed.notify_all()
            return True

    def discard(self, row: int) -> None:
        """Remove a state that is no longer needed; does nothing if it is not held.

        Sends no event, with one exception: a write that has begun still sends `StateWritten` if it
        succeeds. The caller must then delete the row from the store.
        """
        with self._changed:
            if (entry := self._entries.get(row)) is not None:
                self._entries.remove(entry)
                self._entries.trim()
                self._changed.notify_all()

    def flush(self, *, leaving: bool, write: bool = True) -> None:
        """Write all states worth a write; wait for the writes and for all events.

        Returns when each write has succeeded or failed, and all events are delivered.

        Parameters
        ----------
        leaving : remove all states from memory. States whose write has failed twice are dropped.
        write : False: start no writes, and drop the unwritten states; only with ``leaving``.
        """
        self._drain(leaving=leaving, write=write, close=False)

    def close(self) -> None:
        """Flush all states, end the thread and remove the staging folder; idempotent."""
        self._drain(leaving=True, write=True, close=True)
        if self._thread is not None:
            self._thread.join()
        with self._changed:
            staging, self._staging = self._staging, None
        if staging is not None:
            staging.close()

    def _drain(self, *, leaving: bool, write: bool, close: bool) -> None:
        awaited: list[tuple[CacheEntry, int]] = []
        with self._changed:
            if self._outbox.is_delivering_here or threading.current_thread() is self._thread:
                raise RuntimeError(
                    "tell must not call flush or close: both wait until tell has all events"
                )
            if self._is_closed:
                return
            self._n_flushing += leaving
            for entry in list(self._entries):
                if (
                    leaving
                    and not write
                    and entry.write_state in (WriteState.DIRTY, WriteState.QUEUED)
                ):
                    self._drop(entry, "all states were dropped")
                elif leaving:
                    self._evict(entry)
                elif entry.write_state is not WriteState.CLEAN and (
                    entry.write_state is not WriteState.DIRTY
                    or self._should_write(entry, leaving=False)
                ):
                    self._queue_write(entry)
                    awaited.append((entry, entry.n_failed))
            self._entries.trim()
            self._changed.notify_all()
        self._outbox.deliver()

        def is_settled() -> bool:
            if not self._outbox.is_delivered:
                return False
            if leaving:
                return not self._entries and self._entries.in_flight is None
            return all(
                entry.write_state is WriteState.CLEAN
                or entry.n_failed > n
                or self._entries.was_removed(entry)
                for entry, n in awaited
            )

        with self._changed:
            try:
                self._changed.wait_for(is_settled)
                if close:
                    self._is_closed = True
                    self._entries = CacheEntries(0)  # frees the buffers
            finally:
                self._n_flushing -= leaving
                self._changed.notify_all()

    def flush_seconds(self) -> float:
        """Return the expected seconds of the writes due before the worker ends."""
        with self._changed:
            return self._write_seconds(self._at_risk())

    # -- decisions, with the lock held -----------------------------------------------------------

    def _insert(self, entry: CacheEntry) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="daskhpo-writer", daemon=True)
            self._thread.start()
        self._entries.add(entry)
        if self._should_write(entry, leaving=False):
            self._queue_write(entry)
        capacity = self._entries.capacity
        if self._n_flushing or entry.n_bytes > capacity:
            self._evict(entry)
        for other in lowest_ranked(self._entries.excess(), self._entries.evictable):
            self._evict(other)
        self._entries.trim()
        leaving = [other for other in self._entries if other.is_evicting and other.file is None]
        most = capacity + MAX_OVERRUN * max((other.n_bytes for other in leaving), default=0)
        waiting = (other for other in leaving if other.write_state is WriteState.QUEUED)
        for other in lowest_ranked(self._entries.n_bytes - most, waiting):
            self._drop(other, "memory was full of states that waited to be written")
        self._entries.trim()
        self._changed.notify_all()

    def _should_write(self, entry: CacheEntry, *, leaving: bool) -> bool:
        return should_write(
            entry.probability,
            entry.unsaved_seconds,
            self._cost.seconds(entry.snapshot.n_bytes),
            is_evicting=leaving,
            durability=self._durability,
        )

    def _at_risk(self) -> list[CacheEntry]:
        """Return the unwritten states that would be worth a write if the worker ended now."""
        return [
            entry
            for entry in self._entries
            if entry.write_state is not WriteState.CLEAN and self._should_write(entry, leaving=True)
        ]

    def _write_seconds(self, entries: Iterable[CacheEntry]) -> float:
        return sum(self._cost.seconds(entry.snapshot.n_bytes) for entry in entries)

    def _queue_write(self, entry: CacheEntry) -> None:
        """Queue an entry; also cancel its delay after a failed write."""
        if entry.write_state is WriteState.DIRTY:
            entry.write_state = WriteState.QUEUED
        entry.not_before = 0.0

    def _evict(self, entry: CacheEntry) -> None:
        """Evict an entry: now, or after its write if it is worth one."""
        if entry.write_state is WriteState.CLEAN:
            self._entries.remove(entry)
            self._outbox.put(StateEvicted(entry.ref, entry.attempt))
        elif entry.write_state is WriteState.WRITING or self._should_write(entry, leaving=True):
            entry.is_evicting = True
            self._queue_write(entry)
        else:
            self._drop(entry, "not worth a write when it had to leave memory")

    def _drop(self, entry: CacheEntry, reason: str) -> None:
        self._entries.remove(entry)
        self._outbox.put(StateDropped(entry.ref, entry.attempt, reason))

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._check_deadline()
            with self._changed:
                litter, self._entries.garbage = self._entries.garbage, []
                entry = self._next_entry()
                if entry is not None:
                    entry.write_state, self._entries.in_flight = WriteState.WRITING, entry
                elif self._is_closed:
                    return  # close removes the staging folder with its files
                elif not litter:
                    self._changed.wait(self._wait_seconds())
            for file in litter:
                with suppress(OSError):  # close removes the folder later
                    file.unlink()
            if entry is not None:
                if entry.needs_staging:
                    self._stage(entry)
                else:
                    self._write(entry)
                self._outbox.deliver()

    def _next_entry(self) -> CacheEntry | None:
        """Return the next entry to write, or None.

        Order: entries to stage (which frees memory soon), mandatory writes, evictions, then the
        best ratio of expected loss to cost.
        """
        now = time.monotonic()
        return max(
            (
                entry
                for entry in self._entries
                if entry.write_state is WriteState.QUEUED and entry.not_before <= now
            ),
            key=lambda entry: (
                entry.needs_staging,
                entry.probability is ReuseProbability.CERTAIN,
                entry.is_evicting,
                entry.expected_loss / self._cost.seconds(entry.snapshot.n_bytes),
            ),
            default=None,
        )

    def _wait_seconds(self) -> float | None:
        """Return the seconds until the thread's next check; None: until a change."""
        if not self._entries:
            return None
        retries = (
            entry.not_before for entry in self._entries if entry.write_state is WriteState.QUEUED
        )
        return max(
            0.0, min(DEADLINE_CHECK_SECONDS, min(retries, default=float("inf")) - time.monotonic())
        )

    def _check_deadline(self) -> None:
        """Queue all states that are worth a write if the job is about to end."""
        with self._changed:
            if not self._entries or time.monotonic() < self._next_check:
                return
        self._next_check = time.monotonic() + DEADLINE_CHECK_SECONDS  # seconds_left may be slow
        try:
            left = self._seconds_left()
        except Exception:
            logger.exception("seconds_left failed; states may be lost when the job ends")
            self._seconds_left = lambda: None
            return
        if left is None:
            return
        with self._changed:
            threatened = self._at_risk()
            if left < max(
                SHUTDOWN_SECONDS, SHUTDOWN_WRITE_FACTOR * self._write_seconds(threatened)
            ):
                soon = time.monotonic() + SHUTDOWN_RETRY_SECONDS
                for entry in threatened:
                    if entry.write_state is WriteState.DIRTY:
                        entry.write_state = WriteState.QUEUED
                    entry.not_before = min(entry.not_before, soon)

    def _stage(self, entry: CacheEntry) -> None:
        assert self._staging is not None, "an entry needs staging, but there is no staging folder"
        try:
            staged = self._staging.put(entry.snapshot)
        except Exception as error:
            self._warn_staging_failed(error)
            staged = None
        with self._changed:
            self._entries.in_flight = None
            entry.needs_staging, entry.write_state = False, WriteState.QUEUED
            if staged is not None:
                self._entries.recycle(entry)
                entry.snapshot, entry.file = staged
            if self._entries.was_removed(entry):
                self._entries.free(entry)
            self._entries.trim()
            self._changed.notify_all()

    def _write(self, entry: CacheEntry) -> None:
        begin = time.perf_counter()
        try:
            ref = self._store.write_snapshot(entry.ref, entry.snapshot)
        except Exception as error:
            if not isinstance(error, OSError):
                logger.exception("unexpected error while writing a state")
            self._on_failed(entry, f"{type(error).__name__}: {error}")
        else:
            self._on_written(entry, ref, time.perf_counter() - begin)

    def _on_written(self, entry: CacheEntry, ref: CheckpointRef, seconds: float) -> None:
        with self._changed:
            self._entries.in_flight = None
            self._cost.observe(entry.snapshot.n_bytes, seconds)
            entry.ref, entry.write_state, entry.unsaved_seconds = ref, WriteState.CLEAN, 0.0
            self._outbox.put(StateWritten(ref, entry.attempt))
            if self._entries.was_removed(entry):
                self._entries.free(entry)
            elif entry.is_evicting:
                self._evict(entry)
            # staging files of written states may take up to ``capacity`` bytes
            files = [
                e for e in self._entries if e.file is not None and e.write_state is WriteState.CLEAN
            ]
            excess = sum(e.snapshot.n_bytes for e in files) - self._entries.capacity
            for other in lowest_ranked(excess, files):
                self._evict(other)
            self._entries.trim()
            self._changed.notify_all()

    def _on_failed(self, entry: CacheEntry, error: str) -> None:
        with self._changed:
            self._entries.in_flight = None
            entry.n_failed += 1
            entry.write_state = WriteState.QUEUED
            entry.not_before = 0.0 if self._n_flushing else time.monotonic() + WRITE_RETRY_SECONDS
            if self._entries.was_removed(entry):
                self._entries.free(entry)
            elif self._n_flushing and entry.n_failed > 1:
                self._drop(entry, f"could not be written: {error}")
            elif entry.n_failed == 1:
                self._outbox.put(WriteFailed(entry.ref, entry.attempt, error))
            self._entries.trim()
            self._changed.notify_all()

    def _warn_staging_failed(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("states are written to the store without staging: %s", error)
