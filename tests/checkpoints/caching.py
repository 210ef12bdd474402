"""Tools of the cache's tests: a desk for its decisions; for its thread, a store that waits, and a
disk that breaks."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from daskhpo.checkpoints import snapshot
from daskhpo.checkpoints.cache_protocol import (
    BufferWanted,
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
from daskhpo.checkpoints.cache_state import WRITE_RETRY_SECONDS, CacheState
from daskhpo.checkpoints.codec import Snapshot
from daskhpo.core.events import Dropped, Saved
from daskhpo.core.types import ReuseProbability
from daskhpo.testing.stores import a_ref, a_state

SIZE = snapshot(a_state(), 0, 1).n_bytes
SECONDS = 60.0  # a wait that takes so long has failed
NEVER = 1e12  # durability: nothing is written only because workers may die
HOUR = 3600.0


def id_of(event):
    """Id of the checkpoint that an event is about."""
    return event.ref.id if isinstance(event, Saved) else event.checkpoint_id


class Notes:
    """What was told, and a way to wait for more."""

    def __init__(self):
        self.all = []
        self.told = threading.Condition()

    def __call__(self, event):
        with self.told:
            self.all.append(event)
            self.told.notify_all()

    def wait(self, kind, row):
        with self.told:
            assert self.told.wait_for(lambda: (kind, row) in self.brief, SECONDS), self.brief

    @property
    def brief(self):
        return [(type(event), id_of(event)) for event in self.all]

    def of(self, row):
        return [type(event) for event in self.all if id_of(event) == row]

    def reason(self, row):
        """Why a state was dropped."""
        (reason,) = (e.reason for e in self.all if isinstance(e, Dropped) and id_of(e) == row)
        return reason

    def refs(self):
        return {event.ref.id: event.ref for event in self.all if isinstance(event, Saved)}


class Desk:
    """The decisions of a cache: a script's words for events, and what they lead to.

    Nothing ends by itself: ``lands`` and ``fails`` end what is in flight.
    """

    def __init__(self, n_states=100, **options):
        self.state = CacheState(int(n_states * SIZE), **options)
        self.notes = Notes()
        self.now = 0.0
        self.in_flight = None  # StartWrite or StartStaging
        self.settled = []  # numbers of flushes
        self.unlinked = []
        self.n_staged = 0

    def say(self, event):
        """Feed an event; return the actions."""
        actions = self.state.handle(event, self.now)
        for action in actions:
            match action:
                case Notify(event):
                    assert event.seconds == self.now
                    self.notes(event)
                case StartWrite() | StartStaging():
                    assert self.in_flight is None, "two writes at once"
                    self.in_flight = action
                case Settle(number):
                    self.settled.append(number)
                case Unlink(file):
                    self.unlinked.append(file)
        return actions

    # -- calls -----------------------------------------------------------------------------------

    def put(self, row, chance=ReuseProbability.LIKELY, unsaved=HOUR, *, buffer=None, of=None):
        """Put a state of its row, or this snapshot; return it."""
        taken = of or snapshot(a_state(row), row, 1, buffer)
        self.say(StatePut(a_ref(row, trial=row), 7, taken, chance, unsaved))
        return taken

    def buffer(self, n_bytes=SIZE):
        for action in self.say(BufferWanted(n_bytes)):
            if isinstance(action, Lend):
                return action.buffer
        return None

    def write(self, row):
        return self.say(WriteRequested(row))

    def discard(self, row):
        return self.say(Discarded(row))

    def flush(self, number=0):
        return self.say(FlushRequested(number))

    def clear(self, number=0, *, write=True):
        return self.say(ClearRequested(number, write))

    def close(self, number=0):
        return self.say(CloseRequested(number))

    # -- what the thread says --------------------------------------------------------------------

    def lands(self, seconds=0.02):
        """End what is in flight, successfully; return the row, or None for a staging."""
        job, self.in_flight = self.in_flight, None
        match job:
            case StartStaging(taken):
                self.n_staged += 1
                mapped = taken.buffer.copy()
                mapped.flags.writeable = False
                file = Path(f"file-{self.n_staged}")
                self.say(StateStaged(Snapshot(mapped, taken.layout), file))
                return None
            case StartWrite(ref, taken):
                complete = replace(ref, array="a", n_bytes=taken.n_bytes, checksum=1)
                self.say(WriteFinished(complete, seconds))
                return ref.id
        raise AssertionError("nothing is in flight")

    def fails(self, error="disk on fire"):
        """End what is in flight, without success."""
        job, self.in_flight = self.in_flight, None
        assert job is not None, "nothing is in flight"
        self.say(WriteFailed(error) if isinstance(job, StartWrite) else StagingFailed())

    def all_land(self):
        """End all writes, one after another; return the rows in this order."""
        rows = []
        while self.in_flight is not None:
            rows.append(self.lands())
        return [row for row in rows if row is not None]

    def later(self, seconds, seconds_left=None):
        """Let time pass, then tick."""
        self.now += seconds
        self.say(Tick(seconds_left))

    @property
    def writing(self):
        """Row that is being written, or None."""
        return self.in_flight.ref.id if isinstance(self.in_flight, StartWrite) else None


def no_longer_worth_it(desk, row):
    """Put a state whose write failed, and is in flight again when writes have become too slow."""
    desk.put(row, ReuseProbability.UNLIKELY, 500.0)
    desk.fails()
    for other in range(100, 103):
        desk.put(other, ReuseProbability.CERTAIN)
        desk.lands(seconds=1000.0)
        desk.discard(other)
        assert desk.buffer() is not None
    desk.later(WRITE_RETRY_SECONDS)
    assert desk.writing == row
    assert desk.state.flush_seconds() == 0


class Gate:
    """A real store whose writes wait at a gate."""

    def __init__(self, store):
        self.store = store
        self.open = threading.Event()
        self.at_gate = threading.Semaphore(0)

    def write_snapshot(self, ref, snap):
        self.at_gate.release()
        assert self.open.wait(SECONDS)
        return self.store.write_snapshot(ref, snap)

    def wait_for_writer(self):
        assert self.at_gate.acquire(timeout=SECONDS)


def hold(cache, row, chance=ReuseProbability.LIKELY, unsaved=HOUR, buffer=None):
    snap = snapshot(a_state(row), row, 1, buffer)
    cache.put(a_ref(row, trial=row), 7, snap, chance, unsaved)
    return snap


def zeros(n_bytes, row=1):
    """A snapshot of a little more than so many bytes."""
    return snapshot({"w": np.zeros(n_bytes, np.uint8)}, row, 1)


@contextmanager
def broken(store):
    """Put a file in the place of the folder above the store's, so that writes fail."""
    folder = store.path.parent
    aside = folder.with_name("aside")
    if was_there := folder.exists():
        folder.rename(aside)
    folder.write_text("in the way")
    yield
    folder.unlink()
    if was_there:
        aside.rename(folder)
