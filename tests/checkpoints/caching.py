"""What tests of held states share: who hears of them, a store that waits, a disk that breaks."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from daskhpo.checkpoints import snapshot
from daskhpo.checkpoints.cache_events import StateWritten
from daskhpo.core.types import ReuseProbability
from daskhpo.testing.stores import a_ref, a_state

SIZE = snapshot(a_state(), 0, 1).n_bytes
SECONDS = 60.0  # a wait that takes so long has failed
NEVER = 1e12  # durability: nothing is written only because workers may die
HOUR = 3600.0


class Notes:
    """What was told, and a way to wait for more."""

    def __init__(self):
        self.all = []
        self.told = threading.Condition()

    def __call__(self, note):
        with self.told:
            self.all.append(note)
            self.told.notify_all()

    def wait(self, kind, row):
        with self.told:
            assert self.told.wait_for(lambda: (kind, row) in self.brief, SECONDS), self.brief

    @property
    def brief(self):
        return [(type(note), note.ref.id) for note in self.all]

    def of(self, row):
        return [type(note) for note in self.all if note.ref.id == row]

    def refs(self):
        return {note.ref.id: note.ref for note in self.all if isinstance(note, StateWritten)}


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
