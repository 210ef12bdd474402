"""Decisions of a worker's cache: what to stage, write, evict or drop, and when.

::

    StatePut ──► DIRTY ──► QUEUED ──► in flight ──► CLEAN ──► evicted     (WriteState)
                   │        │   ▲         │           │          │
                Dropped  Dropped└─────SaveFailed    Saved     Dropped     (Notify)

A dirty state is dropped if memory has no room for it and a write is not worth its time. A queued
state is dropped if memory is full while the disk is slow, or if its write has failed twice while
the cache is emptied. Otherwise a state whose write failed is queued again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from daskhpo.checkpoints.cache_entries import CacheEntries, CacheEntry, WriteState, lowest_ranked
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
from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.write_policy import WriteCost, should_write
from daskhpo.core.events import Dropped, Saved, SaveFailed
from daskhpo.core.types import ReuseProbability

WRITE_RETRY_SECONDS = 30.0  # after a failed write
SHUTDOWN_RETRY_SECONDS = 5.0  # the same, shortly before the job ends
# Write all states worth a write when the job has less time left than the larger of these:
SHUTDOWN_SECONDS = 30.0
SHUTDOWN_WRITE_FACTOR = 3.0  # times the expected seconds of all these writes
MAX_OVERRUN = 2  # states above the capacity, while evicted states wait to be written


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


class CacheState:
    """The decision logic of a worker's cache: it turns events into actions.

    It is pure: no clock, no thread, no lock, no disk. At most one write or staging is in flight;
    the next one starts with the event that ends it.

    Parameters
    ----------
    capacity : bytes of memory for states and buffers. Evicted states that wait to be written may
        exceed it by at most twice the size of the largest of them. Beyond that, the one with the
        lowest rank is dropped. Memory of states that were looked up is not counted once they left.
    durability : see `should_write`.
    staging : True: queued states are staged first, which frees their memory. Files of written
        states may stay until eviction, up to ``capacity`` bytes.
    """

    def __init__(self, capacity: int, durability: float = 100.0, *, staging: bool = False) -> None:
        if capacity < 0:
            raise ValueError(f"capacity={capacity!r} must be at least 0 bytes")
        if not durability >= 0:
            raise ValueError(f"durability={durability!r} must be at least 0")
        self.is_closed = False
        self._durability, self._staging, self._cost = durability, staging, WriteCost()
        self._entries = CacheEntries(capacity)
        # Requests that wait. A flush waits for these entries to be written, to be removed, or to
        # fail more often than this; the others wait until nothing is held.
        self._flushes: dict[int, list[tuple[CacheEntry, int]]] = {}
        self._clears: list[ClearRequested | CloseRequested] = []
        self._now = 0.0
        self._actions: list[CacheAction] = []

    @property
    def n_bytes(self) -> int:
        """Bytes of memory in use, buffers included."""
        return self._entries.n_bytes

    @property
    def ids(self) -> list[int]:
        """Ids of the checkpoints that are held, oldest first."""
        return [entry.ref.id for entry in self._entries]

    def get(self, checkpoint_id: int) -> CachedState | None:
        """Return a state, or None if it is not held; its memory is then never reused."""
        if (entry := self._entries.get(checkpoint_id)) is None:
            return None
        entry.is_pinned = True
        return CachedState(entry.snapshot, entry.unsaved_seconds)

    def flush_seconds(self) -> float:
        """Return the expected seconds of the writes due before the worker ends."""
        return self._write_seconds(filter(self._is_at_risk, self._entries))

    def handle(self, event: CacheEvent, now: float) -> list[CacheAction]:
        """Handle one event and return actions; ``now`` in seconds never decreases.

        Raises
        ------
        ValueError
            `StatePut`: the checkpoint is held already.
        """
        self._now, self._actions = now, []
        match event:
            case StatePut():
                self._put(event)
            case BufferWanted(n_bytes):
                self._lend(n_bytes)
            case WriteRequested(checkpoint_id):
                if (entry := self._entries.get(checkpoint_id)) is not None:
                    entry.probability = ReuseProbability.CERTAIN
                    self._queue(entry)
            case Discarded(checkpoint_id):
                if (entry := self._entries.get(checkpoint_id)) is not None:
                    self._remove(entry)
            case FlushRequested(number):
                self._flush(number)
            case ClearRequested() | CloseRequested():
                self._clear(event)
            case StateStaged() | StagingFailed() | WriteFinished() | WriteFailed():
                self._land(event)
            case Tick(seconds_left):
                if seconds_left is not None:
                    self._check_deadline(seconds_left)
        if self._clears:
            self._drop_unwritten()
        self._entries.trim()
        if not isinstance(event, (BufferWanted, Discarded)):  # which queue nothing
            self._start_next()
        self._settle()
        return self._actions

    # -- calls -----------------------------------------------------------------------------------

    def _lend(self, n_bytes: int) -> None:
        """Lend a buffer; remove states that are unlikely to be needed and need no write."""
        entries = self._entries
        if n_bytes > entries.capacity:
            return
        needless = (
            entry
            for entry in entries.evictable()
            if entry.probability is ReuseProbability.UNLIKELY
            and entry is not entries.in_flight
            and not self._is_at_risk(entry)
        )
        for entry in lowest_ranked(entries.excess(n_bytes), needless):
            self._evict(entry)
        if (buffer := entries.take_buffer(n_bytes)) is not None:
            self._actions.append(Lend(buffer))

    def _put(self, put: StatePut) -> None:
        entries, ref = self._entries, put.ref
        if entries.get(ref.id) is not None:
            raise ValueError(
                f"checkpoint {ref.id!r} is held already; use each checkpoint id only once"
            )
        if self.is_closed:
            reason = "its worker's cache was closed"
            self._notify(Dropped(ref.trial, put.attempt, ref.id, reason, self._now))
            return
        entry = CacheEntry(
            ref,
            put.attempt,
            put.snapshot,
            put.probability,
            put.unsaved_seconds,
            needs_staging=self._staging,
        )
        entries.add(entry)
        if self._should_write(entry, is_evicting=False):
            self._queue(entry)
        if self._clears or entry.n_bytes > entries.capacity:
            self._evict(entry)
        for other in lowest_ranked(entries.excess(), entries.evictable()):
            self._evict(other)
        self._drop_overflow()

    def _drop_overflow(self) -> None:
        """Drop evicted states that wait to be written and exceed the capacity too far."""
        evicting = [entry for entry in self._entries if entry.is_evicting and entry.file is None]
        if not evicting:
            return
        self._entries.trim()  # buffers go first
        most = self._entries.capacity + MAX_OVERRUN * max(entry.n_bytes for entry in evicting)
        waiting = (entry for entry in evicting if entry is not self._entries.in_flight)
        for entry in lowest_ranked(self._entries.n_bytes - most, waiting):
            self._drop(entry, "memory was full of states that waited to be written")

    def _flush(self, number: int) -> None:
        awaited = [
            entry
            for entry in self._entries
            if entry.write_state is not WriteState.DIRTY
            or self._should_write(entry, is_evicting=False)
        ]
        for entry in awaited:
            self._queue(entry)
        self._flushes[number] = [(entry, entry.n_failed) for entry in awaited]

    def _clear(self, request: ClearRequested | CloseRequested) -> None:
        self._clears.append(request)
        self._drop_unwritten()
        for entry in list(self._entries):
            self._evict(entry)

    def _drop_unwritten(self) -> None:
        """Drop what is neither written nor in flight if a clear without writing waits."""
        if all(isinstance(clear, CloseRequested) or clear.write for clear in self._clears):
            return
        in_flight = self._entries.in_flight
        for entry in list(self._entries):
            if entry.write_state is not WriteState.CLEAN and entry is not in_flight:
                self._drop(entry, "all states were dropped")

    def _settle(self) -> None:
        """Answer the requests that have what they waited for."""
        for number, awaited in list(self._flushes.items()):
            if all(
                entry.write_state is WriteState.CLEAN
                or entry.n_failed > n_failed
                or not self._entries.holds(entry)
                for entry, n_failed in awaited
            ):
                del self._flushes[number]
                self._actions.append(Settle(number))
        if self._clears and not self._entries and self._entries.in_flight is None:
            for request in self._clears:
                self._actions.append(Settle(request.number))
                if isinstance(request, CloseRequested):
                    self.is_closed = True
                    self._entries = CacheEntries(0)  # frees the buffers
            self._clears = []

    # -- the end of a write or staging, and time -------------------------------------------------

    def _land(self, end: StateStaged | StagingFailed | WriteFinished | WriteFailed) -> None:
        """Handle the end of what was in flight; its entry may have been removed meanwhile."""
        entry, self._entries.in_flight = self._entries.in_flight, None
        assert entry is not None, f"nothing was in flight: {end}"
        is_held = self._entries.holds(entry)
        match end:
            case StateStaged(snapshot, file):
                self._entries.recycle(entry)
                entry.snapshot, entry.file, entry.needs_staging = snapshot, file, False
            case StagingFailed():
                entry.needs_staging = False
            case WriteFinished(ref, seconds):
                self._cost.observe(entry.snapshot.n_bytes, seconds)
                entry.ref, entry.write_state, entry.unsaved_seconds = ref, WriteState.CLEAN, 0.0
                self._notify(Saved(ref.trial, entry.attempt, ref, self._now))
                if is_held and entry.is_evicting:
                    self._evict(entry)
                self._evict_files()
            case WriteFailed(error):
                entry.n_failed += 1
                entry.not_before = 0.0 if self._clears else self._now + WRITE_RETRY_SECONDS
                if is_held and self._clears and entry.n_failed > 1:
                    self._drop(entry, f"could not be written: {error}")
                elif is_held and entry.n_failed == 1:
                    ref = entry.ref
                    self._notify(SaveFailed(ref.trial, entry.attempt, ref.id, error, self._now))
        if not is_held:
            self._free(entry)

    def _evict_files(self) -> None:
        """Evict written states whose staging files take more than ``capacity`` bytes."""
        files = [
            entry
            for entry in self._entries
            if entry.file is not None and entry.write_state is WriteState.CLEAN
        ]
        excess = sum(entry.snapshot.n_bytes for entry in files) - self._entries.capacity
        for entry in lowest_ranked(excess, files):
            self._evict(entry)

    def _check_deadline(self, seconds_left: float) -> None:
        """Queue all states that are worth a write if the job is about to end."""
        at_risk = [entry for entry in self._entries if self._is_at_risk(entry)]
        if seconds_left >= max(
            SHUTDOWN_SECONDS, SHUTDOWN_WRITE_FACTOR * self._write_seconds(at_risk)
        ):
            return
        for entry in at_risk:
            if entry.write_state is WriteState.DIRTY:
                entry.write_state = WriteState.QUEUED
            entry.not_before = min(entry.not_before, self._now + SHUTDOWN_RETRY_SECONDS)

    # -- decisions -------------------------------------------------------------------------------

    def _should_write(self, entry: CacheEntry, *, is_evicting: bool) -> bool:
        return should_write(
            entry.probability,
            entry.unsaved_seconds,
            self._cost.seconds(entry.snapshot.n_bytes),
            is_evicting=is_evicting,
            durability=self._durability,
        )

    def _is_at_risk(self, entry: CacheEntry) -> bool:
        """Return True if a state is not written, and is worth a write if it has to leave."""
        return entry.write_state is not WriteState.CLEAN and self._should_write(
            entry, is_evicting=True
        )

    def _write_seconds(self, entries: Iterable[CacheEntry]) -> float:
        return sum(self._cost.seconds(entry.snapshot.n_bytes) for entry in entries)

    def _start_next(self) -> None:
        """Start the next write or staging if none is in flight.

        Order: entries to stage (which frees memory soon), mandatory writes, evictions, then the
        best ratio of expected loss to cost.
        """
        if self._entries.in_flight is not None:
            return
        entry = max(
            (
                entry
                for entry in self._entries
                if entry.write_state is WriteState.QUEUED and entry.not_before <= self._now
            ),
            key=lambda entry: (
                entry.needs_staging,
                entry.probability is ReuseProbability.CERTAIN,
                entry.is_evicting,
                entry.expected_loss / self._cost.seconds(entry.snapshot.n_bytes),
            ),
            default=None,
        )
        if entry is not None:
            self._entries.in_flight = entry
            self._actions.append(
                StartStaging(entry.snapshot)
                if entry.needs_staging
                else StartWrite(entry.ref, entry.snapshot)
            )

    def _queue(self, entry: CacheEntry) -> None:
        """Queue an entry; also cancel its delay after a failed write."""
        if entry.write_state is WriteState.DIRTY:
            entry.write_state = WriteState.QUEUED
        entry.not_before = 0.0

    def _evict(self, entry: CacheEntry) -> None:
        """Evict an entry: now, or after its write if it is worth one."""
        if entry.write_state is WriteState.CLEAN:
            self._drop(entry, "evicted for other states")
        elif entry is self._entries.in_flight or self._is_at_risk(entry):
            entry.is_evicting = True
            self._queue(entry)
        else:
            self._drop(entry, "not worth a write when it had to leave memory")

    def _drop(self, entry: CacheEntry, reason: str) -> None:
        ref = entry.ref
        self._notify(Dropped(ref.trial, entry.attempt, ref.id, reason, self._now))
        self._remove(entry)

    def _remove(self, entry: CacheEntry) -> None:
        """Remove an entry; one that is in flight is freed when that has ended."""
        self._entries.remove(entry)
        if entry is not self._entries.in_flight:
            self._free(entry)

    def _free(self, entry: CacheEntry) -> None:
        """Recycle the memory, or remove the file, of an entry that is not in use."""
        if entry.file is not None:
            self._actions.append(Unlink(entry.file))
        else:
            self._entries.recycle(entry)

    def _notify(self, event: Saved | SaveFailed | Dropped) -> None:
        self._actions.append(Notify(event))
