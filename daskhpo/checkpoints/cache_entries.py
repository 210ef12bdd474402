"""What lies in a worker's memory, and how much it takes; no thread, no disk, no lock of its own."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.tree import Row
from daskhpo.core.types import Chance, CheckpointRef

MAX_BUFFERS = 2


class Place(Enum):
    """Where an entry stands on its way to the store."""

    PARKED = auto()  # in memory only, where it may stay
    WANTED = auto()  # shall be written
    WRITING = auto()  # is what the thread is at
    WRITTEN = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """One state that is held."""

    ref: CheckpointRef
    attempt: int
    snapshot: Snapshot
    chance: Chance
    unsaved_seconds: float
    is_to_stage: bool
    file: Path | None = None  # of the staging folder: then it takes no memory
    place: Place = Place.PARKED
    is_leaving: bool = False  # as soon as it is written
    is_lent: bool = False  # somebody may still read its row: it must not become a buffer
    n_failed: int = 0
    not_before: float = 0.0  # of the monotonic clock, after a failure

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return self.snapshot.n_bytes if self.file is None else 0

    @property
    def loss(self) -> float:
        """Seconds of training that are lost, on average, if it vanishes."""
        return self.chance.value * self.unsaved_seconds

    @property
    def rank(self) -> tuple[bool, float, float]:
        """What has the least leaves first; of equals the oldest."""
        return self.chance is not Chance.POOR, self.loss, self.chance.value


class Shelf:
    """Entries by their rows, the oldest first, and buffers that entries left.

    Whoever uses it from several threads holds a lock meanwhile.

    Parameters
    ----------
    capacity : bytes of memory for entries and buffers.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.at_work: Entry | None = None  # with the thread; may have been removed meanwhile
        self.litter: list[Path] = []  # staging files to remove, which the thread does
        self._entries: dict[int, Entry] = {}
        self._buffers: list[Row] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, row: int) -> Entry | None:
        """The entry of a row, if it is held."""
        return self._entries.get(row)

    def is_gone(self, entry: Entry) -> bool:
        """Whether an entry was removed."""
        return self._entries.get(entry.ref.row) is not entry

    def add(self, entry: Entry) -> None:
        """Hold an entry; if its layout equals the newest one's, both share that.

        Of small states the layout takes as much memory as the row.
        """
        if self._entries:
            layout = next(reversed(self._entries.values())).snapshot.layout
            if layout.name == entry.snapshot.layout.name:
                entry.snapshot = Snapshot(entry.snapshot.row, layout)
        self._entries[entry.ref.row] = entry

    def remove(self, entry: Entry) -> None:
        """Hold an entry no more. What the thread works on is freed by it, when it is done."""
        del self._entries[entry.ref.row]
        if entry is not self.at_work:
            self.free(entry)

    # -- memory ----------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that are taken, buffers included."""
        n_bytes = sum(entry.n_bytes for entry in self)
        if self.at_work is not None and self.is_gone(self.at_work):
            n_bytes += self.at_work.n_bytes
        return n_bytes + sum(row.nbytes for row in self._buffers)

    @property
    def staying(self) -> list[Entry]:
        """Entries that take memory and are not on their way out."""
        return [entry for entry in self if not entry.is_leaving and entry.file is None]

    def excess(self, n_coming: int = 0) -> int:
        """Bytes by which what stays, and what comes, would exceed the capacity; may be below 0."""
        return sum(entry.n_bytes for entry in self.staying) + n_coming - self.capacity

    def free(self, entry: Entry) -> None:
        """Take the memory or the file of an entry that nobody works on."""
        if entry.file is not None:
            self.litter.append(entry.file)
        else:
            self.recycle(entry)

    def recycle(self, entry: Entry) -> None:
        """Keep the entry's memory for the next one, if nobody else can read or write there."""
        row = entry.snapshot.row
        if not entry.is_lent and row.flags.writeable:
            self._buffers.append(row)

    def take_buffer(self, n_bytes: int) -> Row | None:
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


def least(n_bytes: int, entries: Iterable[Entry]) -> list[Entry]:
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
