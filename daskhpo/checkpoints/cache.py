"""The states that a worker keeps in memory, and writes to the store only when that is worth it.

::

    hold ──► DIRTY ─────► QUEUED ────► WRITING ─────► CLEAN ───────► evicted     (WriteState)
               │            │             │             │               │
         StateDropped  StateDropped  WriteFailed  StateWritten    StateEvicted   (CacheEvent)

A dirty state is dropped if memory has no room for it and a write is not worth its time; a queued
one, if memory is full while the disk is slow, or if its write fails for good. A state whose write
failed is queued again.

One thread writes, so that training goes on meanwhile and ``hold`` never waits for a disk. Nothing
lowers the thread's priority: it would still take the interpreter's lock, and then be the one who is
not given a core.
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

DEADLINE_CHECK_SECONDS = 1.0  # between two looks at how long the job goes on
WRITE_RETRY_SECONDS = 30.0  # after a write that failed
SHUTDOWN_RETRY_SECONDS = 5.0  # the same when the job is about to end
SHUTDOWN_SECONDS = 30.0  # before the job's end, at least, all that is worth it is written
SHUTDOWN_WRITE_FACTOR = 3.0  # ... or before it in multiples of what all the writes should take
MAX_OVERRUN = 2  # states, above the capacity, that wait to be written before they leave


class SnapshotStore(Protocol):
    """Where states are written."""

    def write_snapshot(self, ref: CheckpointRef, snapshot: Snapshot) -> CheckpointRef:
        """Write durably; the reference comes back complete. Raises OSError."""


@dataclass(frozen=True, slots=True, eq=False)
class CachedState:
    """A state in memory, or mapped from a staging file: to restore here, or to send to a peer.

    Attributes
    ----------
    unsaved_seconds : training that is lost with it; 0 once it is written.
    """

    snapshot: Snapshot
    unsaved_seconds: float
    is_written: bool


class StateCache:
    """States of one worker process, by the rows that the coordinator gave them.

    All methods may be called from any thread. Only `flush` and `close` wait for the disk.

    Parameters
    ----------
    store : where states are written.
    tell : is given each note, one at a time and in order, from whichever thread caused it. It must
        return soon, and not call `flush` or `close`.
    capacity : bytes of memory for states and buffers. States that wait to be written before they
        leave may exceed it, by at most twice the largest of them: then the one with the least to
        lose is dropped. What a caller of `get` still refers to is not counted.
    durability : see `should_write`.
    staging : folder on a local disk. What shall be written is moved there first, so that it takes
        no memory, and copied to the store from there. Files of states that are written and not
        evicted may stay, up to ``capacity`` bytes.
    seconds_left : seconds until the job ends, or None; asked about every second while anything is
        held. Shortly before the end all that is worth it is written, and stays in memory.
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
        self._next_check = 0.0  # of the monotonic clock; the thread's own
        self._n_flushing = 0  # calls that wait until nothing is held
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

    # -- what the training thread and the coordinator ask --------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that are taken, buffers included."""
        with self._changed:
            return self._entries.n_bytes

    @property
    def ids(self) -> list[int]:
        """The rows that are held, the oldest first."""
        with self._changed:
            return [entry.ref.id for entry in self._entries]

    def take_buffer(self, n_bytes: int) -> ByteArray | None:
        """Memory of a state that left, for the snapshot that is about to be held, or None.

        States with a poor chance that need no write are evicted to have it.
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
        """Keep a state. The caller must not use the snapshot's row any more.

        Parameters
        ----------
        unsaved_seconds : training that is lost with it: since its trial's last committed
            checkpoint, or its start.

        Raises
        ------
        ValueError
            The row is held already.
        """
        with self._changed:
            if self._entries.get(ref.id) is not None:
                raise ValueError(f"row={ref.id!r} is held already; rows are given out once")
            if self._is_closed:
                self._outbox.put(StateDropped(ref, attempt, "its worker had let go of all states"))
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
        """A state that is held, which it remains; None if it is not."""
        with self._changed:
            if (entry := self._entries.get(row)) is None:
                return None
            entry.is_pinned = True
            is_written = entry.write_state is WriteState.CLEAN
            return CachedState(entry.snapshot, entry.unsaved_seconds, is_written)

    def write(self, row: int) -> bool:
        """Have a state written whatever it costs; return whether it is held."""
        with self._changed:
            if (entry := self._entries.get(row)) is None:
                return False
            entry.probability = ReuseProbability.CERTAIN
            self._queue_write(entry)
            self._changed.notify_all()
            return True

    def discard(self, row: int) -> None:
        """Let go of a state that nobody needs; fine if it is not held.

        There is no note, except that a write which has begun is told when it succeeds: what is in
        the store then has to be deleted there.
        """
        with self._changed:
            if (entry := self._entries.get(row)) is not None:
                self._entries.remove(entry)
                self._entries.trim()
                self._changed.notify_all()

    def flush(self, *, leaving: bool, write: bool = True) -> None:
        """Write what is worth it; return when that is done, or failed, and all notes are told.

        Parameters
        ----------
        leaving : let go of everything. What cannot be written at the second attempt is dropped.
        write : False: only with ``leaving``; begin no write.
        """
        self._drain(leaving=leaving, write=write, close=False)

    def close(self) -> None:
        """Flush everything out, end the thread and remove the staging folder; may be repeated."""
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
                raise RuntimeError("tell must not call flush or close: they wait for its notes")
            if self._is_closed:
                return
            self._n_flushing += leaving
            for entry in list(self._entries):
                if (
                    leaving
                    and not write
                    and entry.write_state in (WriteState.DIRTY, WriteState.QUEUED)
                ):
                    self._drop(entry, "all states were let go of")
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
                    self._entries = CacheEntries(0)  # without its buffers
            finally:
                self._n_flushing -= leaving
                self._changed.notify_all()

    def flush_seconds(self) -> float:
        """How long the writes should take that are worth it before the worker goes."""
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
        """What would be lost, and is worth a write, if the worker went now."""
        return [
            entry
            for entry in self._entries
            if entry.write_state is not WriteState.CLEAN and self._should_write(entry, leaving=True)
        ]

    def _write_seconds(self, entries: Iterable[CacheEntry]) -> float:
        return sum(self._cost.seconds(entry.snapshot.n_bytes) for entry in entries)

    def _queue_write(self, entry: CacheEntry) -> None:
        """Have it written, now also if it failed a moment ago."""
        if entry.write_state is WriteState.DIRTY:
            entry.write_state = WriteState.QUEUED
        entry.not_before = 0.0

    def _evict(self, entry: CacheEntry) -> None:
        """Let it leave: now, or when it is written if that is worth it."""
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
                    return  # the staging folder goes as a whole
                elif not litter:
                    self._changed.wait(self._wait_seconds())
            for file in litter:
                with suppress(OSError):  # close removes the whole folder
                    file.unlink()
            if entry is not None:
                if entry.needs_staging:
                    self._stage(entry)
                else:
                    self._write(entry)
                self._outbox.deliver()

    def _next_entry(self) -> CacheEntry | None:
        """What to do first: what frees memory soon, then what must be, then the best bargain."""
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
        """Seconds until the thread has to look again, if nothing changes."""
        if not self._entries:
            return None
        retries = (
            entry.not_before for entry in self._entries if entry.write_state is WriteState.QUEUED
        )
        return max(
            0.0, min(DEADLINE_CHECK_SECONDS, min(retries, default=float("inf")) - time.monotonic())
        )

    def _check_deadline(self) -> None:
        """When the job is about to end, want all that is worth writing."""
        with self._changed:
            if not self._entries or time.monotonic() < self._next_check:
                return
        self._next_check = (
            time.monotonic() + DEADLINE_CHECK_SECONDS
        )  # it may cost more than our other steps
        try:
            left = self._seconds_left()
        except Exception:
            logger.exception("seconds_left failed; states may be lost at the job's end")
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
        assert self._staging is not None, "only entries made with a staging folder are staged"
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
                logger.exception("a write failed in an unexpected way")
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
            # of files that are in the store, as many may stay as memory might hold
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
            logger.warning("states go to the store without staging: %s", error)
