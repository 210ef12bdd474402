"""What lies in a worker's memory, and how much it takes; no thread, no disk, no lock of its own."""

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
    """Where an entry stands on its way to the store."""

    DIRTY = auto()  # in memory only, where it may stay
    QUEUED = auto()  # shall be written
    WRITING = auto()  # is what the thread is at
    CLEAN = auto()


@dataclass(slots=True, eq=False)
class CacheEntry:
    """One state that is held."""

    ref: CheckpointRef
    attempt: int
    snapshot: Snapshot
    probability: ReuseProbability
    unsaved_seconds: float
    needs_staging: bool
    file: Path | None = None  # of the staging folder: then it takes no memory
    write_state: WriteState = WriteState.DIRTY
    is_evicting: bool = False  # as soon as it is written
    is_pinned: bool = False  # somebody may still read its row: it must not become a buffer
    n_failed: int = 0
    not_before: float = 0.0  # of the monotonic clock, after a failure

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return self.snapshot.n_bytes if self.file is None else 0

    @property
    def expected_loss(self) -> float:
        """Seconds of training that are lost, on average, if it vanishes."""
        return self.probability.value * self.unsaved_seconds

    @property
    def rank(self) -> tuple[bool, float, float]:
        """What has the least leaves first; of equals the oldest."""
        return (
            self.probability is not ReuseProbability.UNLIKELY,
            self.expected_loss,
            self.probability.value,
        )


class CacheEntries:
    """Entries by their rows, the oldest first, and buffers that entries left.

    Whoever uses it from several threads holds a lock meanwhile.

    Parameters
    ----------
    capacity : bytes of memory for entries and buffers.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_flight: CacheEntry | None = None  # with the thread; may have been removed meanwhile
        self.garbage: list[Path] = []  # staging files to remove, which the thread does
        self._entries: dict[int, CacheEntry] = {}
        self._buffers: list[ByteArray] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[CacheEntry]:
        return iter(self._entries.values())

    def get(self, row: int) -> CacheEntry | None:
        """The entry of a row, if it is held."""
        return self._entries.get(row)

    def was_removed(self, entry: CacheEntry) -> bool:
        """Whether an entry was removed."""
        return self._entries.get(entry.ref.id) is not entry

    def add(self, entry: CacheEntry) -> None:
        """Hold an entry; if its layout equals the newest one's, both share that.

        Of small states the layout takes as much memory as the row.
        """
        if self._entries:
            layout = next(reversed(self._entries.values())).snapshot.layout
            if layout.name == entry.snapshot.layout.name:
                entry.snapshot = Snapshot(entry.snapshot.buffer, layout)
        self._entries[entry.ref.id] = entry

    def remove(self, entry: CacheEntry) -> None:
        """Hold an entry no more. What the thread works on is freed by it, when it is done."""
        del self._entries[entry.ref.id]
        if entry is not self.in_flight:
            self.free(entry)

    # -- memory ----------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that are taken, buffers included."""
        n_bytes = sum(entry.n_bytes for entry in self)
        if self.in_flight is not None and self.was_removed(self.in_flight):
            n_bytes += self.in_flight.n_bytes
        return n_bytes + sum(row.nbytes for row in self._buffers)

    @property
    def evictable(self) -> list[CacheEntry]:
        """Entries that take memory and are not on their way out."""
        return [entry for entry in self if not entry.is_evicting and entry.file is None]

    def excess(self, n_coming: int = 0) -> int:
        """Bytes by which what stays, and what comes, would exceed the capacity; may be below 0."""
        return sum(entry.n_bytes for entry in self.evictable) + n_coming - self.capacity

    def free(self, entry: CacheEntry) -> None:
        """Take the memory or the file of an entry that nobody works on."""
        if entry.file is not None:
            self.garbage.append(entry.file)
        else:
            self.recycle(entry)

    def recycle(self, entry: CacheEntry) -> None:
        """Keep the entry's memory for the next one, if nobody else can read or write there."""
        row = entry.snapshot.buffer
        if not entry.is_pinned and row.flags.writeable:
            self._buffers.append(row)

    def take_buffer(self, n_bytes: int) -> ByteArray | None:
        """Memory of this size, which is counted no more until an entry has it."""
        found = None
        for i, row in enumerate(self._buffers):
            if row.nbytes == n_bytes:
                found = self._buffers.pop(i)
                break
        self.trim(reserve=n_bytes)
        return found

    def trim(self, reserve: int = 0) -> None:
        """Give up buffers, the oldest first, that are too many or have no room."""
        while self._buffers and (
            len(self._buffers) > MAX_BUFFERS or self.n_bytes + reserve > self.capacity
        ):
            del self._buffers[0]


def lowest_ranked(n_bytes: int, entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """Those with the least to lose, so many that their rows have at least ``n_bytes``, or all."""
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
