from __future__ import annotations

import itertools
import threading

from daskhpo.checkpoints.cache import StateCache
from daskhpo.checkpoints.cache_events import StateDropped, StateEvicted, StateWritten
from daskhpo.core.types import ReuseProbability
from tests.checkpoints.caching import (
    NEVER,
    SECONDS,
    SIZE,
    hold,
)


def test_notes_come_one_at_a_time_and_in_order(store, notes):
    entered, go, at_once = threading.Event(), threading.Event(), threading.Lock()

    def tell(note):
        assert at_once.acquire(blocking=False)
        if isinstance(note, StateWritten):
            entered.set()
            assert go.wait(SECONDS)
        notes(note)
        at_once.release()

    cache = StateCache(store, tell, capacity=SIZE, durability=NEVER)
    hold(cache, 0, ReuseProbability.CERTAIN)
    assert entered.wait(SECONDS)  # the thread is telling that row 0 is written
    hold(cache, 1, ReuseProbability.LIKELY)  # which pushes it out
    seen = []

    def flush():
        cache.flush(leaving=False)
        seen.extend(notes.brief)

    flushing = threading.Thread(target=flush)
    flushing.start()
    hold(cache, 2, ReuseProbability.UNLIKELY, 0.0)
    go.set()
    flushing.join()
    assert seen == [(StateWritten, 0), (StateEvicted, 0), (StateDropped, 2)]
    cache.close()


def test_a_flush_waits_for_the_write_of_a_forgotten_state(gate, notes, residents_of):
    cache = residents_of(gate)
    hold(cache, 0, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    cache.discard(0)
    hold(cache, 1, ReuseProbability.UNLIKELY, 0.0)
    seen = []

    def flush():
        cache.flush(leaving=True)
        seen.extend(notes.brief)

    flushing = threading.Thread(target=flush)
    flushing.start()
    notes.wait(StateDropped, 1)  # so the flush has begun
    gate.open.set()
    flushing.join()
    assert seen == [(StateDropped, 1), (StateWritten, 0)]


def test_a_listener_that_raises_is_logged_and_hears_the_rest(store, notes, caplog):
    def tell(note):
        notes(note)
        if note.ref.id == 0:
            raise LookupError("no such row")

    cache = StateCache(store, tell, capacity=10 * SIZE)
    hold(cache, 0, ReuseProbability.CERTAIN)
    hold(cache, 1, ReuseProbability.CERTAIN)
    cache.close()
    assert sorted(notes.brief, key=str) == sorted(
        itertools.product((StateWritten, StateEvicted), (0, 1)), key=str
    )
    assert "no such row" in caplog.text


def test_a_listener_may_forget_but_not_wait(store, notes, caplog):
    def tell(note):
        notes(note)
        cache.discard(note.ref.id)
        cache.flush(leaving=False)

    cache = StateCache(store, tell, capacity=10 * SIZE)
    hold(cache, 0, ReuseProbability.CERTAIN)
    cache.flush(leaving=False)
    assert notes.brief == [(StateWritten, 0)]
    assert cache.ids == []
    assert "tell must not call flush or close" in caplog.text
    cache.close()
