"""Entries of a worker's cache, and the memory that they use."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.tree import ByteArray
from daskhpo.core.types import CheckpointRef, ReuseProbability

MAX_BUFFERS = 2


class WriteState(Enum):
    """Progress of an entry on its way to the store."""

    DIRTY = auto()  # in memory only; no write is planned
    QUEUED = auto()  # waits to be staged or written, or is in flight
    CLEAN = auto()  # in the store


@dataclass(slots=True, eq=False)
class CacheEntry:
    """One state in the cache."""

    ref: CheckpointRef
    attempt: int
    snapshot: Snapshot
    probability: ReuseProbability
    unsaved_seconds: float
    needs_staging: bool
    file: Path | None = None  # in the staging folder; a staged state takes no memory
    write_state: WriteState = WriteState.DIRTY
    is_evicting: bool = False  # leaves as soon as it is written
    is_pinned: bool = False  # a caller may still read its buffer, so it is not reused
    n_failed: int = 0
    not_before: float = 0.0  # earliest next write after a failure, on the cache's clock

    @property
    def n_bytes(self) -> int:
        """Bytes of memory in use; 0 if the state is staged."""
        return self.snapshot.n_bytes if self.file is None else 0

    @property
    def expected_loss(self) -> float:
        """Seconds of training lost, on average, if the state is lost."""
        return self.probability.value * self.unsaved_seconds

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sort key: the lowest leaves first; see `lowest_ranked`."""
        return (
            self.probability is not ReuseProbability.UNLIKELY,
            self.expected_loss,
            self.probability.value,
        )


class CacheEntries:
    """Entries by checkpoint id, oldest first, and reusable buffers of former entries.

    Parameters
    ----------
    capacity : bytes of memory for entries and buffers.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_flight: CacheEntry | None = None  # is being staged or written; may be removed
        self._entries: dict[int, CacheEntry] = {}
        self._buffers: list[ByteArray] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[CacheEntry]:
        return iter(self._entries.values())

    def get(self, checkpoint_id: int) -> CacheEntry | None:
        """Return the entry of a checkpoint, or None if it is not held."""
        return self._entries.get(checkpoint_id)

    def holds(self, entry: CacheEntry) -> bool:
        """Return False if the entry was removed."""
        return self._entries.get(entry.ref.id) is entry

    def add(self, entry: CacheEntry) -> None:
        """Add an entry; it shares the layout of the newest entry if both are equal.

        For small states the layout takes as much memory as the row.
        """
        if self._entries:
            layout = next(reversed(self._entries.values())).snapshot.layout
            if layout.name == entry.snapshot.layout.name:
                entry.snapshot = Snapshot(entry.snapshot.buffer, layout)
        self._entries[entry.ref.id] = entry

    def remove(self, entry: CacheEntry) -> None:
        """Remove an entry; its memory no longer counts, unless it is in flight."""
        del self._entries[entry.ref.id]

    # -- memory ----------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory in use, buffers included."""
        n_bytes = sum(entry.n_bytes for entry in self)
        if self.in_flight is not None and not self.holds(self.in_flight):
            n_bytes += self.in_flight.n_bytes
        return n_bytes + sum(buffer.nbytes for buffer in self._buffers)

    def evictable(self) -> Iterator[CacheEntry]:
        """Yield the entries that take memory and are not being evicted."""
        return (entry for entry in self if not entry.is_evicting and entry.file is None)

    def excess(self, n_coming: int = 0) -> int:
        """Return the bytes above the capacity if ``n_coming`` are added; may be negative.

        Entries that are being evicted do not count.
        """
        return sum(entry.n_bytes for entry in self.evictable()) + n_coming - self.capacity

    def recycle(self, entry: CacheEntry) -> None:
        """Keep the entry's memory as a buffer, unless it is pinned or read-only."""
        buffer = entry.snapshot.buffer
        if not entry.is_pinned and buffer.flags.writeable:
            self._buffers.append(buffer)

    def take_buffer(self, n_bytes: int) -> ByteArray | None:
        """Return a buffer of exactly this size, or None. It is no longer counted.

        Frees other buffers that would leave no room for ``n_bytes``.
        """
        found = None
        for i, buffer in enumerate(self._buffers):
            if buffer.nbytes == n_bytes:
                found = self._buffers.pop(i)
                break
        self.trim(reserve=n_bytes)
        return found

    def trim(self, reserve: int = 0) -> None:
        """Free buffers, oldest first, beyond `MAX_BUFFERS` or the capacity.

        Parameters
        ----------
        reserve : bytes of the capacity to leave free.
        """
        while self._buffers and (
            len(self._buffers) > MAX_BUFFERS or self.n_bytes + reserve > self.capacity
        ):
            del self._buffers[0]


def lowest_ranked(n_bytes: int, entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """Return the lowest-ranked entries, enough to free ``n_bytes``, or all.

    Equal entries are returned in their given order.
    """
    if n_bytes <= 0:
        return []
    heap = [(entry.rank, i, entry) for i, entry in enumerate(entries)]
    heapq.heapify(heap)
    found = []
    while n_bytes > 0 and heap:
        *_, entry = heapq.heappop(heap)
        n_bytes -= entry.snapshot.n_bytes
        found.append(entry)
    return found
