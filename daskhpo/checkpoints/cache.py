"""The states that a worker keeps in memory, and writes to the store only when that is worth it.

::

    hold ──► PARKED ──► WANTED ──► WRITING ──► WRITTEN ──► evicted      (a place on the shelf)
               │           │          │           │            │
            Dropped     Dropped   Unwritable    Written     Evicted     (what is told)

A parked state is dropped if it has to leave and is not worth a write; one that is wanted, if memory
is full while the disk is slow, or if it fails for good. What cannot be written is wanted again.

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

from daskhpo.checkpoints.cache_entries import Entry, Place, Shelf, least
from daskhpo.checkpoints.cache_events import Dropped, Evicted, Note, Outbox, Unwritable, Written
from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.staging import Staging
from daskhpo.checkpoints.tree import Row
from daskhpo.checkpoints.write_policy import WriteCost, is_worth_writing
from daskhpo.core.types import Chance, CheckpointRef

logger = logging.getLogger("daskhpo")

LOOK_SECONDS = 1.0  # between two looks at how long the job goes on
RETRY_SECONDS = 30.0  # after a write that failed
ENDING_RETRY_SECONDS = 5.0  # the same when the job is about to end
ENDING_SECONDS = 30.0  # before the job's end, at least, all that is worth it is written
ENDING_TIMES = 3.0  # ... or before it in multiples of what all the writes should take
MAX_OVERRUN = 2  # states, above the capacity, that wait to be written before they leave


class SnapshotStore(Protocol):
    """Where states are written."""

    def write_snapshot(self, ref: CheckpointRef, snapshot: Snapshot) -> CheckpointRef:
        """Write durably; the reference comes back complete. Raises OSError."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A state in memory, or mapped from a staging file: to restore here, or to send to a peer.

    Attributes
    ----------
    unsaved_seconds : training that is lost with it; 0 once it is written.
    """

    snapshot: Snapshot
    unsaved_seconds: float
    is_written: bool


class Residents:
    """States of one worker process, by the rows that the coordinator gave them.

    All methods may be called from any thread. Only `flush` and `close` wait for the disk.

    Parameters
    ----------
    store : where states are written.
    tell : is given each note, one at a time and in order, from whichever thread caused it. It must
        return soon, and not call `flush` or `close`.
    capacity : bytes of memory for states and buffers. States that wait to be written before they
        leave may exceed it, by at most twice the largest of them: then the one with the least to
        lose is dropped. What a caller still has of `fetch` is not counted.
    durability : see `is_worth_writing`.
    staging : folder on a local disk. What shall be written is moved there first, so that it takes
        no memory, and copied to the store from there. Files of states that are written and not
        evicted may stay, up to ``capacity`` bytes.
    seconds_left : seconds until the job ends, or None; asked about every second while anything is
        held. Shortly before the end all that is worth it is written, and stays in memory.
    """

    def __init__(
        self,
        store: SnapshotStore,
        tell: Callable[[Note], None],
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
        self._shelf = Shelf(capacity)
        self._thread: threading.Thread | None = None
        self._next_look = 0.0  # of the monotonic clock; the thread's own
        self._n_clearing = 0  # calls that wait until nothing is held
        self._is_closed = False
        self._changed = threading.Condition()
        self._outbox = Outbox(tell, self._changed)
        self._staging: Staging | None = None
        self._has_warned = False
        if staging is not None:
            try:
                self._staging = Staging(staging)
            except OSError as error:
                self._warn_of_staging(error)

    # -- what the training thread and the coordinator ask --------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that are taken, buffers included."""
        with self._changed:
            return self._shelf.n_bytes

    @property
    def rows(self) -> list[int]:
        """The rows that are held, the oldest first."""
        with self._changed:
            return [entry.ref.row for entry in self._shelf]

    def buffer(self, n_bytes: int) -> Row | None:
        """Memory of a state that left, for the snapshot that is about to be held, or None.

        States with a poor chance that need no write are evicted to have it.
        """
        with self._changed:
            shelf = self._shelf
            if self._is_closed or n_bytes > shelf.capacity:
                return None
            needless = (
                entry
                for entry in shelf.staying
                if entry.chance is Chance.POOR
                and entry.place is not Place.WRITING
                and (entry.place is Place.WRITTEN or not self._is_worth(entry, leaving=True))
            )
            for entry in least(shelf.excess(n_bytes), needless):
                self._send_off(entry)
            row = shelf.take_buffer(n_bytes)
        self._outbox.deliver()
        return row

    def hold(
        self,
        ref: CheckpointRef,
        attempt: int,
        snapshot: Snapshot,
        chance: Chance,
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
            if self._shelf.get(ref.row) is not None:
                raise ValueError(f"row={ref.row!r} is held already; rows are given out once")
            if self._is_closed:
                self._outbox.put(Dropped(ref, attempt, "its worker had let go of all states"))
            else:
                self._add(
                    Entry(
                        ref,
                        attempt,
                        snapshot,
                        chance,
                        unsaved_seconds,
                        is_to_stage=self._staging is not None,
                    )
                )
        self._outbox.deliver()

    def fetch(self, row: int) -> Held | None:
        """A state that is held, which it remains; None if it is not."""
        with self._changed:
            if (entry := self._shelf.get(row)) is None:
                return None
            entry.is_lent = True
            is_written = entry.place is Place.WRITTEN
            return Held(entry.snapshot, entry.unsaved_seconds, is_written)

    def write(self, row: int) -> bool:
        """Have a state written whatever it costs; return whether it is held."""
        with self._changed:
            if (entry := self._shelf.get(row)) is None:
                return False
            entry.chance = Chance.SURE
            self._want(entry)
            self._changed.notify_all()
            return True

    def forget(self, row: int) -> None:
        """Let go of a state that nobody needs; fine if it is not held.

        There is no note, except that a write which has begun is told when it succeeds: what is in
        the store then has to be deleted there.
        """
        with self._changed:
            if (entry := self._shelf.get(row)) is not None:
                self._shelf.remove(entry)
                self._shelf.trim()
                self._changed.notify_all()

    def flush(self, *, leaving: bool, write: bool = True) -> None:
        """Write what is worth it; return when that is done, or failed, and all notes are told.

        Parameters
        ----------
        leaving : let go of everything. What cannot be written at the second attempt is dropped.
        write : False: only with ``leaving``; begin no write.
        """
        self._settle(leaving=leaving, write=write, close=False)

    def close(self) -> None:
        """Flush everything out, end the thread and remove the staging folder; may be repeated."""
        self._settle(leaving=True, write=True, close=True)
        if self._thread is not None:
            self._thread.join()
        with self._changed:
            staging, self._staging = self._staging, None
        if staging is not None:
            staging.close()

    def _settle(self, *, leaving: bool, write: bool, close: bool) -> None:
        awaited: list[tuple[Entry, int]] = []
        with self._changed:
            if self._outbox.is_telling_here or threading.current_thread() is self._thread:
                raise RuntimeError("tell must not call flush or close: they wait for its notes")
            if self._is_closed:
                return
            self._n_clearing += leaving
            for entry in list(self._shelf):
                if leaving and not write and entry.place in (Place.PARKED, Place.WANTED):
                    self._drop(entry, "all states were let go of")
                elif leaving:
                    self._send_off(entry)
                elif entry.place is not Place.WRITTEN and (
                    entry.place is not Place.PARKED or self._is_worth(entry, leaving=False)
                ):
                    self._want(entry)
                    awaited.append((entry, entry.n_failed))
            self._shelf.trim()
            self._changed.notify_all()
        self._outbox.deliver()

        def is_settled() -> bool:
            if not self._outbox.is_told:
                return False
            if leaving:
                return not self._shelf and self._shelf.at_work is None
            return all(
                entry.place is Place.WRITTEN or entry.n_failed > n or self._shelf.is_gone(entry)
                for entry, n in awaited
            )

        with self._changed:
            try:
                self._changed.wait_for(is_settled)
                if close:
                    self._is_closed = True
                    self._shelf = Shelf(0)  # without its buffers
            finally:
                self._n_clearing -= leaving
                self._changed.notify_all()

    def seconds_to_leave(self) -> float:
        """How long the writes should take that are worth it before the worker goes."""
        with self._changed:
            return self._seconds_of(self._threatened())

    # -- decisions, with the lock held -----------------------------------------------------------

    def _add(self, entry: Entry) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="daskhpo-writer", daemon=True)
            self._thread.start()
        self._shelf.add(entry)
        if self._is_worth(entry, leaving=False):
            self._want(entry)
        capacity = self._shelf.capacity
        if self._n_clearing or entry.n_bytes > capacity:
            self._send_off(entry)
        for other in least(self._shelf.excess(), self._shelf.staying):
            self._send_off(other)
        self._shelf.trim()
        leaving = [other for other in self._shelf if other.is_leaving and other.file is None]
        most = capacity + MAX_OVERRUN * max((other.n_bytes for other in leaving), default=0)
        waiting = (other for other in leaving if other.place is Place.WANTED)
        for other in least(self._shelf.n_bytes - most, waiting):
            self._drop(other, "memory was full of states that waited to be written")
        self._shelf.trim()
        self._changed.notify_all()

    def _is_worth(self, entry: Entry, *, leaving: bool) -> bool:
        return is_worth_writing(
            entry.chance,
            entry.unsaved_seconds,
            self._cost.seconds(entry.snapshot.n_bytes),
            is_leaving=leaving,
            durability=self._durability,
        )

    def _threatened(self) -> list[Entry]:
        """What would be lost, and is worth a write, if the worker went now."""
        return [
            entry
            for entry in self._shelf
            if entry.place is not Place.WRITTEN and self._is_worth(entry, leaving=True)
        ]

    def _seconds_of(self, entries: Iterable[Entry]) -> float:
        return sum(self._cost.seconds(entry.snapshot.n_bytes) for entry in entries)

    def _want(self, entry: Entry) -> None:
        """Have it written, now also if it failed a moment ago."""
        if entry.place is Place.PARKED:
            entry.place = Place.WANTED
        entry.not_before = 0.0

    def _send_off(self, entry: Entry) -> None:
        """Let it leave: now, or when it is written if that is worth it."""
        if entry.place is Place.WRITTEN:
            self._shelf.remove(entry)
            self._outbox.put(Evicted(entry.ref, entry.attempt))
        elif entry.place is Place.WRITING or self._is_worth(entry, leaving=True):
            entry.is_leaving = True
            self._want(entry)
        else:
            self._drop(entry, "not worth a write when it had to leave memory")

    def _drop(self, entry: Entry, reason: str) -> None:
        self._shelf.remove(entry)
        self._outbox.put(Dropped(entry.ref, entry.attempt, reason))

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._look_at_the_clock()
            with self._changed:
                litter, self._shelf.litter = self._shelf.litter, []
                entry = self._next()
                if entry is not None:
                    entry.place, self._shelf.at_work = Place.WRITING, entry
                elif self._is_closed:
                    return  # the staging folder goes as a whole
                elif not litter:
                    self._changed.wait(self._patience())
            for file in litter:
                with suppress(OSError):  # close removes the whole folder
                    file.unlink()
            if entry is not None:
                if entry.is_to_stage:
                    self._stage(entry)
                else:
                    self._write(entry)
                self._outbox.deliver()

    def _next(self) -> Entry | None:
        """What to do first: what frees memory soon, then what must be, then the best bargain."""
        now = time.monotonic()
        return max(
            (
                entry
                for entry in self._shelf
                if entry.place is Place.WANTED and entry.not_before <= now
            ),
            key=lambda entry: (
                entry.is_to_stage,
                entry.chance is Chance.SURE,
                entry.is_leaving,
                entry.loss / self._cost.seconds(entry.snapshot.n_bytes),
            ),
            default=None,
        )

    def _patience(self) -> float | None:
        """Seconds until the thread has to look again, if nothing changes."""
        if not self._shelf:
            return None
        retries = (entry.not_before for entry in self._shelf if entry.place is Place.WANTED)
        return max(0.0, min(LOOK_SECONDS, min(retries, default=float("inf")) - time.monotonic()))

    def _look_at_the_clock(self) -> None:
        """When the job is about to end, want all that is worth writing."""
        with self._changed:
            if not self._shelf or time.monotonic() < self._next_look:
                return
        self._next_look = time.monotonic() + LOOK_SECONDS  # it may cost more than our other steps
        try:
            left = self._seconds_left()
        except Exception:
            logger.exception("seconds_left failed; states may be lost at the job's end")
            self._seconds_left = lambda: None
            return
        if left is None:
            return
        with self._changed:
            threatened = self._threatened()
            if left < max(ENDING_SECONDS, ENDING_TIMES * self._seconds_of(threatened)):
                soon = time.monotonic() + ENDING_RETRY_SECONDS
                for entry in threatened:
                    if entry.place is Place.PARKED:
                        entry.place = Place.WANTED
                    entry.not_before = min(entry.not_before, soon)

    def _stage(self, entry: Entry) -> None:
        assert self._staging is not None, "only entries made with a staging folder are staged"
        try:
            staged = self._staging.put(entry.snapshot)
        except Exception as error:
            self._warn_of_staging(error)
            staged = None
        with self._changed:
            self._shelf.at_work = None
            entry.is_to_stage, entry.place = False, Place.WANTED
            if staged is not None:
                self._shelf.recycle(entry)
                entry.snapshot, entry.file = staged
            if self._shelf.is_gone(entry):
                self._shelf.free(entry)
            self._shelf.trim()
            self._changed.notify_all()

    def _write(self, entry: Entry) -> None:
        begin = time.perf_counter()
        try:
            ref = self._store.write_snapshot(entry.ref, entry.snapshot)
        except Exception as error:
            if not isinstance(error, OSError):
                logger.exception("a write failed in an unexpected way")
            self._on_failed(entry, f"{type(error).__name__}: {error}")
        else:
            self._on_written(entry, ref, time.perf_counter() - begin)

    def _on_written(self, entry: Entry, ref: CheckpointRef, seconds: float) -> None:
        with self._changed:
            self._shelf.at_work = None
            self._cost.observe(entry.snapshot.n_bytes, seconds)
            entry.ref, entry.place, entry.unsaved_seconds = ref, Place.WRITTEN, 0.0
            self._outbox.put(Written(ref, entry.attempt))
            if self._shelf.is_gone(entry):
                self._shelf.free(entry)
            elif entry.is_leaving:
                self._send_off(entry)
            # of files that are in the store, as many may stay as memory might hold
            files = [e for e in self._shelf if e.file is not None and e.place is Place.WRITTEN]
            excess = sum(e.snapshot.n_bytes for e in files) - self._shelf.capacity
            for other in least(excess, files):
                self._send_off(other)
            self._shelf.trim()
            self._changed.notify_all()

    def _on_failed(self, entry: Entry, error: str) -> None:
        with self._changed:
            self._shelf.at_work = None
            entry.n_failed += 1
            entry.place = Place.WANTED
            entry.not_before = 0.0 if self._n_clearing else time.monotonic() + RETRY_SECONDS
            if self._shelf.is_gone(entry):
                self._shelf.free(entry)
            elif self._n_clearing and entry.n_failed > 1:
                self._drop(entry, f"could not be written: {error}")
            elif entry.n_failed == 1:
                self._outbox.put(Unwritable(entry.ref, entry.attempt, error))
            self._shelf.trim()
            self._changed.notify_all()

    def _warn_of_staging(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("states go to the store without staging: %s", error)
