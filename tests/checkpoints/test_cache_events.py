from __future__ import annotations

import itertools
import threading

from daskhpo.checkpoints.cache import Residents
from daskhpo.checkpoints.cache_events import Dropped, Evicted, Written
from daskhpo.core.types import Chance
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
        if isinstance(note, Written):
            entered.set()
            assert go.wait(SECONDS)
        notes(note)
        at_once.release()

    residents = Residents(store, tell, capacity=SIZE, durability=NEVER)
    hold(residents, 0, Chance.SURE)
    assert entered.wait(SECONDS)  # the thread is telling that row 0 is written
    hold(residents, 1, Chance.REAL)  # which pushes it out
    seen = []

    def flush():
        residents.flush(leaving=False)
        seen.extend(notes.brief)

    flushing = threading.Thread(target=flush)
    flushing.start()
    hold(residents, 2, Chance.POOR, 0.0)
    go.set()
    flushing.join()
    assert seen == [(Written, 0), (Evicted, 0), (Dropped, 2)]
    residents.close()


def test_a_flush_waits_for_the_write_of_a_forgotten_state(gate, notes, residents_of):
    residents = residents_of(gate)
    hold(residents, 0, Chance.SURE)
    gate.wait_for_writer()
    residents.forget(0)
    hold(residents, 1, Chance.POOR, 0.0)
    seen = []

    def flush():
        residents.flush(leaving=True)
        seen.extend(notes.brief)

    flushing = threading.Thread(target=flush)
    flushing.start()
    notes.wait(Dropped, 1)  # so the flush has begun
    gate.open.set()
    flushing.join()
    assert seen == [(Dropped, 1), (Written, 0)]


def test_a_listener_that_raises_is_logged_and_hears_the_rest(store, notes, caplog):
    def tell(note):
        notes(note)
        if note.ref.row == 0:
            raise LookupError("no such row")

    residents = Residents(store, tell, capacity=10 * SIZE)
    hold(residents, 0, Chance.SURE)
    hold(residents, 1, Chance.SURE)
    residents.close()
    assert sorted(notes.brief, key=str) == sorted(
        itertools.product((Written, Evicted), (0, 1)), key=str
    )
    assert "no such row" in caplog.text


def test_a_listener_may_forget_but_not_wait(store, notes, caplog):
    def tell(note):
        notes(note)
        residents.forget(note.ref.row)
        residents.flush(leaving=False)

    residents = Residents(store, tell, capacity=10 * SIZE)
    hold(residents, 0, Chance.SURE)
    residents.flush(leaving=False)
    assert notes.brief == [(Written, 0)]
    assert residents.rows == []
    assert "tell must not call flush or close" in caplog.text
    residents.close()
