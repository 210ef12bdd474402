from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.checkpoints import ZarrStore
from daskhpo.checkpoints import residents as residents_module
from daskhpo.checkpoints.codec import Snapshot, restore, snapshot
from daskhpo.checkpoints.residents import Dropped, Evicted, Residents, Unwritable, Written
from daskhpo.checkpoints.shelf import MAX_BUFFERS
from daskhpo.checkpoints.staging import Staging
from daskhpo.checkpoints.worth import WriteCost
from daskhpo.core.types import Chance
from daskhpo.testing.stores import a_ref, a_state, assert_same_state

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
        return [(type(note), note.ref.row) for note in self.all]

    def of(self, row):
        return [type(note) for note in self.all if note.ref.row == row]

    def refs(self):
        return {note.ref.row: note.ref for note in self.all if isinstance(note, Written)}


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


@pytest.fixture
def store(tmp_path):
    return ZarrStore(tmp_path / "store" / "checkpoints")


@pytest.fixture
def gate(store):
    gate = Gate(store)
    yield gate
    gate.open.set()


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def residents_of(notes):
    made = []

    def make(store, n_states=100, **kwargs):
        made.append(Residents(store, notes, capacity=n_states * SIZE, **kwargs))
        return made[-1]

    yield make
    for one in made:
        if isinstance(one._store, Gate):
            one._store.open.set()
        one.close()


def hold(residents, row, chance=Chance.REAL, unsaved=HOUR, buffer=None):
    snap = snapshot(a_state(row), row, 1, buffer)
    residents.hold(a_ref(row, trial=row), 7, snap, chance, unsaved)
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


# -- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chance", "unsaved", "durability", "staying", "leaving"),
    [
        (Chance.SURE, 0.0, NEVER, [Written], [Evicted]),
        (Chance.REAL, 24 * HOUR, 100, [Written], [Evicted]),
        (Chance.REAL, HOUR, NEVER, [], [Written, Evicted]),
        (Chance.REAL, 1e-3, 100, [], [Dropped]),
        (Chance.POOR, 1000 * HOUR, 100, [Written], [Evicted]),
        (Chance.POOR, 1000 * HOUR, NEVER, [], [Written, Evicted]),
        (Chance.POOR, 1.0, 100, [], [Dropped]),
        (Chance.POOR, 1.0, 0, [Written], [Evicted]),
    ],
)
def test_a_state_is_written_when_that_is_worth_it(
    store, notes, residents_of, chance, unsaved, durability, staying, leaving
):
    residents = residents_of(store, durability=durability)
    hold(residents, 3, chance, unsaved)
    residents.flush(leaving=False)
    assert notes.of(3) == staying
    assert residents.rows == [3]
    residents.flush(leaving=True)
    assert notes.of(3) == staying + leaving
    assert residents.rows == []


def test_a_sure_state_is_written_without_being_asked_for(store, notes, residents_of):
    hold(residents_of(store), 3, Chance.SURE, 0.0)
    notes.wait(Written, 3)
    assert_same_state(store.read(notes.refs()[3]), a_state(3))
    assert [note.attempt for note in notes.all] == [7]


def test_what_is_told_to_be_evicted_can_be_read(store, notes, residents_of):
    residents = residents_of(store)
    hold(residents, 3)
    residents.close()
    assert notes.of(3) == [Written, Evicted]
    assert notes.all[0].ref == notes.all[1].ref
    assert_same_state(store.read(notes.all[1].ref), a_state(3))


def test_a_parked_state_can_be_asked_to_be_written(store, notes, residents_of):
    residents = residents_of(store)
    hold(residents, 3, Chance.POOR, 0.0)
    assert residents.write(3)
    assert not residents.write(4)
    notes.wait(Written, 3)
    assert_same_state(store.read(notes.refs()[3]), a_state(3))


def test_hold_does_not_wait_for_the_disk(gate, notes, residents_of):
    residents = residents_of(gate)
    for row in range(3):
        hold(residents, row, Chance.SURE)
    gate.wait_for_writer()
    assert residents.rows == [0, 1, 2]
    assert notes.all == []


def test_the_most_urgent_is_written_first(gate, notes, residents_of):
    residents = residents_of(gate, durability=1.0)
    hold(residents, 0, Chance.SURE)
    gate.wait_for_writer()
    hold(residents, 1, Chance.POOR, 1000 * HOUR)
    hold(residents, 2, Chance.REAL, 20 * HOUR)
    hold(residents, 3, Chance.SURE, 0.0)
    hold(residents, 4, Chance.REAL, 30 * HOUR)
    gate.open.set()
    residents.flush(leaving=False)
    assert notes.brief == [(Written, row) for row in (0, 3, 4, 2, 1)]


def test_a_row_is_held_once(store, residents_of):
    residents = residents_of(store)
    hold(residents, 3)
    with pytest.raises(ValueError, match="row=3 is held already"):
        hold(residents, 3)


@pytest.mark.parametrize(("name", "value"), [("capacity", -1), ("durability", -1.0)])
def test_arguments_are_checked(store, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Residents(store, print, **{"capacity": 1, name: value})


# -- room ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "gone"),
    [
        # chance, unsaved seconds of each row; the row that leaves when a third comes
        ([(Chance.REAL, 1e-3), (Chance.POOR, 1e-2), (Chance.REAL, 1e-3)], 1),
        ([(Chance.REAL, 3e-3), (Chance.REAL, 2e-3), (Chance.REAL, 4e-3)], 1),
        ([(Chance.REAL, 1e-3), (Chance.REAL, 1e-3), (Chance.REAL, 1e-3)], 0),
        ([(Chance.REAL, 1e-3), (Chance.REAL, 1e-3), (Chance.POOR, 1.0)], 2),
        ([(Chance.POOR, 2.0), (Chance.POOR, 1.0), (Chance.SURE, 0.0)], 1),
    ],
)
def test_poor_states_leave_first_and_then_those_with_the_least_to_lose(
    gate, notes, residents_of, held, gone
):
    residents = residents_of(gate, n_states=2)
    for row, (chance, unsaved) in enumerate(held):
        hold(residents, row, chance, unsaved)
    assert notes.brief == [(Dropped, gone)]
    assert residents.rows == [row for row in range(3) if row != gone]


def test_of_equal_chances_what_is_written_leaves_first(store, notes, residents_of):
    residents = residents_of(store, n_states=2, durability=NEVER)
    hold(residents, 0, unsaved=1e-3)
    hold(residents, 1)
    residents.write(1)
    notes.wait(Written, 1)
    hold(residents, 2)
    assert notes.brief == [(Written, 1), (Evicted, 1)]
    assert residents.rows == [0, 2]


def test_what_is_worth_a_write_is_written_before_it_leaves(gate, notes, residents_of):
    residents = residents_of(gate, n_states=1, durability=NEVER)
    hold(residents, 0, unsaved=HOUR)
    hold(residents, 1, unsaved=2 * HOUR)
    gate.wait_for_writer()
    assert residents.rows == [0, 1]  # above the capacity, for as long as the write takes
    assert residents.n_bytes == 2 * SIZE
    gate.open.set()
    notes.wait(Evicted, 0)
    assert notes.brief == [(Written, 0), (Evicted, 0)]
    assert residents.rows == [1]
    assert residents.n_bytes == SIZE


def test_when_the_disk_is_too_slow_the_least_loss_is_dropped(gate, notes, residents_of):
    residents = residents_of(gate, n_states=1, durability=NEVER)
    for row, hours in enumerate([2, 3, 1, 4]):
        hold(residents, row, unsaved=hours * HOUR)
        if row == 1:
            gate.wait_for_writer()  # with row 0, which is safe from then on
    # rows 0 and 1 over-run; when row 3 comes, row 1 or 2 has to go
    assert notes.brief == [(Dropped, 2)]
    assert "memory was full" in notes.all[0].reason
    assert residents.n_bytes == 3 * SIZE
    gate.open.set()
    residents.flush(leaving=True)
    assert {row: notes.of(row) for row in (0, 1, 3)} == {
        row: [Written, Evicted] for row in (0, 1, 3)
    }


def test_a_small_state_does_not_push_out_a_large_one_that_waits(gate, notes, residents_of):
    residents = residents_of(gate, n_states=0)
    for row in range(2):
        large = snapshot({"w": np.zeros(10 * SIZE, np.uint8)}, row, 1)
        residents.hold(a_ref(row, trial=row), 7, large, Chance.SURE, HOUR)
        if row == 0:
            gate.wait_for_writer()
    hold(residents, 2, Chance.POOR, 0.0)
    assert notes.brief == [(Dropped, 2)]
    assert residents.rows == [0, 1]


@pytest.mark.parametrize(
    ("chance", "unsaved", "expected"),
    [
        (Chance.SURE, 0.0, [Written, Evicted]),
        (Chance.REAL, HOUR, [Written, Evicted]),
        (Chance.REAL, 1e-3, [Dropped]),
        (Chance.POOR, 1.0, [Dropped]),
    ],
)
def test_a_state_larger_than_the_capacity_is_written_or_dropped_at_once(
    store, notes, residents_of, chance, unsaved, expected
):
    residents = residents_of(store, n_states=0.5, durability=NEVER)
    hold(residents, 5, chance, unsaved)
    notes.wait(expected[-1], 5)
    assert notes.of(5) == expected
    assert residents.n_bytes == 0


def test_a_state_that_can_never_stay_pushes_nothing_out(store, notes, residents_of):
    residents = residents_of(store, n_states=1)
    hold(residents, 0, Chance.POOR, 1e-3)
    large = snapshot({"w": np.zeros(10 * SIZE, np.uint8)}, 1, 1)
    residents.hold(a_ref(1, trial=1), 7, large, Chance.REAL, 1e-2)
    assert notes.brief == [(Dropped, 1)]
    assert residents.rows == [0]


def test_memory_of_a_state_that_left_is_used_again(store, residents_of):
    residents = residents_of(store)
    first = hold(residents, 0, unsaved=1e-3)
    assert residents.buffer(SIZE) is None
    residents.forget(0)
    assert residents.n_bytes == SIZE
    assert residents.buffer(SIZE + 64) is None
    buffer = residents.buffer(SIZE)
    assert np.shares_memory(buffer, first.row)
    assert residents.n_bytes == 0
    hold(residents, 1, buffer=buffer, unsaved=1e-3)
    assert_same_state(restore(residents.fetch(1).snapshot), a_state(1))


def test_memory_that_somebody_may_read_is_not_used_again(store, residents_of):
    residents = residents_of(store)
    hold(residents, 0, unsaved=1e-3)
    held = residents.fetch(0)
    residents.forget(0)
    assert residents.buffer(SIZE) is None
    assert_same_state(restore(held.snapshot), a_state(0))


def test_a_poor_state_gives_its_memory_to_the_next_one(store, notes, residents_of):
    residents = residents_of(store, n_states=2)
    hold(residents, 0, Chance.REAL, 1e-3)
    poor = hold(residents, 1, Chance.POOR, 1e-3)
    buffer = residents.buffer(SIZE)
    assert np.shares_memory(buffer, poor.row)
    hold(residents, 2, Chance.REAL, 1e-3, buffer=buffer)
    assert residents.buffer(SIZE) is None  # none but states with a real chance
    assert residents.n_bytes == 2 * SIZE
    assert notes.brief == [(Dropped, 1)]
    assert_same_state(restore(residents.fetch(2).snapshot), a_state(2))


def test_a_poor_state_that_is_worth_a_write_keeps_its_memory(store, notes, residents_of):
    residents = residents_of(store, n_states=1, durability=NEVER)
    hold(residents, 0, Chance.POOR, 1000 * HOUR)
    assert residents.buffer(SIZE) is None
    residents.flush(leaving=False)
    assert residents.rows == [0]
    assert notes.all == []


def test_memory_that_cannot_be_written_to_is_no_buffer(store, residents_of):
    residents = residents_of(store)
    snap = snapshot(a_state(0), 0, 1)
    received = Snapshot(np.frombuffer(snap.row.tobytes(), np.uint8), snap.layout)
    residents.hold(a_ref(0), 7, received, Chance.REAL, 1e-3)
    residents.forget(0)
    hold(residents, 1, unsaved=1e-3)
    residents.forget(1)
    assert residents.buffer(SIZE).flags.writeable
    assert residents.buffer(SIZE) is None


def test_buffers_of_another_size_make_room(store, residents_of):
    residents = residents_of(store, n_states=3)
    hold(residents, 0, unsaved=1e-3)
    other = snapshot({"w": np.zeros(SIZE // 2, np.uint8)}, 1, 1)
    assert SIZE < other.n_bytes < 2 * SIZE
    residents.hold(a_ref(1, trial=1), 7, other, Chance.REAL, 1e-3)
    residents.forget(1)
    assert residents.n_bytes == SIZE + other.n_bytes
    assert residents.buffer(SIZE) is None
    assert residents.n_bytes == SIZE


def test_few_buffers_are_kept_and_within_the_capacity(store, residents_of):
    residents = residents_of(store, n_states=10)
    for row in range(10):
        hold(residents, row, unsaved=1e-3)
    for row in range(10):
        residents.forget(row)
        assert residents.n_bytes == (9 - row + min(row + 1, MAX_BUFFERS)) * SIZE
    for row in range(10, 20):
        hold(residents, row, unsaved=1e-3)
    assert residents.n_bytes == 10 * SIZE


def test_states_of_one_shape_share_their_layout(store, residents_of):
    residents = residents_of(store)
    for row in range(2):
        hold(residents, row, unsaved=1e-3)
    assert residents.fetch(0).snapshot.layout is residents.fetch(1).snapshot.layout


# -- fetch, forget -------------------------------------------------------------------------------


def test_a_held_state_comes_back_equal_and_stays_as_it_is(store, notes, residents_of):
    residents = residents_of(store, durability=NEVER)
    hold(residents, 3, unsaved=12.5)
    for _ in range(2):
        held = residents.fetch(3)
        state = restore(held.snapshot)
        assert_same_state(state, a_state(3))
        state["model"]["w"][:] = -1
    assert (held.unsaved_seconds, held.is_written) == (12.5, False)
    residents.write(3)
    notes.wait(Written, 3)
    held = residents.fetch(3)
    assert (held.unsaved_seconds, held.is_written) == (0.0, True)
    assert residents.fetch(4) is None


def test_a_fetched_state_outlives_its_eviction(store, residents_of):
    residents = residents_of(store)
    hold(residents, 3)
    held = residents.fetch(3)
    residents.flush(leaving=True)
    assert residents.fetch(3) is None
    assert_same_state(restore(held.snapshot), a_state(3))


def test_a_forgotten_state_is_not_written(gate, notes, residents_of):
    residents = residents_of(gate)
    hold(residents, 0, Chance.SURE)
    gate.wait_for_writer()
    hold(residents, 1, Chance.SURE)
    hold(residents, 2, Chance.POOR, 0.0)
    for row in (1, 2, 99):
        residents.forget(row)
    gate.open.set()
    residents.close()
    assert notes.brief == [(Written, 0), (Evicted, 0)]
    assert [ref.row for ref in gate.store.list()] == [0]


def test_a_write_in_flight_is_told_although_its_state_was_forgotten(gate, notes, residents_of):
    residents = residents_of(gate)
    hold(residents, 0, Chance.SURE)
    gate.wait_for_writer()
    residents.forget(0)
    assert residents.fetch(0) is None
    assert residents.n_bytes == SIZE  # which the thread still reads
    assert residents.buffer(SIZE) is None
    gate.open.set()
    residents.close()
    assert notes.brief == [(Written, 0)]
    assert residents.n_bytes == 0


# -- flush, close --------------------------------------------------------------------------------


def test_all_can_be_let_go_of_without_a_write(store, notes, residents_of):
    residents = residents_of(store, durability=NEVER)
    hold(residents, 0, Chance.SURE)
    notes.wait(Written, 0)
    hold(residents, 1, unsaved=HOUR)
    residents.flush(leaving=True, write=False)
    assert notes.brief == [(Written, 0), (Evicted, 0), (Dropped, 1)]
    assert residents.rows == []


def test_after_a_flush_states_are_held_again(store, residents_of):
    residents = residents_of(store)
    hold(residents, 0)
    residents.flush(leaving=True)
    hold(residents, 1, unsaved=1e-3)
    assert residents.rows == [1]


def test_what_comes_while_all_leave_leaves_too(gate, notes, residents_of):
    residents = residents_of(gate)
    hold(residents, 0, Chance.SURE)
    gate.wait_for_writer()
    flushing = threading.Thread(target=lambda: residents.flush(leaving=True))
    hold(residents, 1, Chance.POOR, 0.0)
    flushing.start()
    notes.wait(Dropped, 1)  # so the flush has begun
    hold(residents, 2, Chance.POOR, 0.0)
    hold(residents, 3, Chance.SURE, 0.0)
    gate.open.set()
    flushing.join()
    assert notes.of(2) == [Dropped]
    assert notes.of(3) == [Written, Evicted]


def test_close_ends_the_thread_and_may_be_repeated(store, notes):
    before = set(threading.enumerate())
    residents = Residents(store, notes, capacity=10 * SIZE)
    hold(residents, 0)
    assert set(threading.enumerate()) - before
    residents.close()
    residents.close()
    assert set(threading.enumerate()) <= before
    hold(residents, 1, Chance.SURE)
    residents.flush(leaving=True)
    assert notes.brief == [(Written, 0), (Evicted, 0), (Dropped, 1)]
    assert residents.rows == []
    assert residents.buffer(SIZE) is None


def test_no_thread_is_started_before_anything_is_held(store, notes):
    before = set(threading.enumerate())
    residents = Residents(store, notes, capacity=SIZE)
    residents.flush(leaving=False)
    residents.flush(leaving=True)
    assert set(threading.enumerate()) <= before
    residents.close()


def test_close_waits_for_the_write_in_flight(gate, notes, residents_of):
    residents = residents_of(gate)
    hold(residents, 0, Chance.SURE)
    gate.wait_for_writer()
    closing = threading.Thread(target=residents.close)
    closing.start()
    assert notes.all == []
    gate.open.set()
    closing.join()
    assert notes.brief == [(Written, 0), (Evicted, 0)]


# -- telling -------------------------------------------------------------------------------------


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


def test_the_cost_of_a_write_is_learnt(store, residents_of):
    residents = residents_of(store)
    hold(residents, 0, Chance.SURE)
    residents.flush(leaving=False)
    assert residents._cost.seconds(SIZE) != WriteCost().seconds(SIZE)


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


# -- a disk that fails ---------------------------------------------------------------------------


def test_a_state_that_cannot_be_written_stays_and_is_written_when_the_disk_is_repaired(
    store, notes, residents_of
):
    residents = residents_of(store)
    with broken(store):
        hold(residents, 0, Chance.SURE)
        notes.wait(Unwritable, 0)
        residents.flush(leaving=False)  # tried again, and told no more
        assert notes.of(0) == [Unwritable]
        assert "NotWritten" in notes.all[0].error
        assert_same_state(restore(residents.fetch(0).snapshot), a_state(0))
    residents.flush(leaving=False)
    assert notes.of(0) == [Unwritable, Written]
    assert_same_state(store.read(notes.refs()[0]), a_state(0))


def test_the_thread_tries_again_by_itself(store, notes, residents_of, monkeypatch):
    monkeypatch.setattr(residents_module, "RETRY_SECONDS", 0.02)
    residents = residents_of(store)
    with broken(store):
        hold(residents, 0, Chance.SURE)
        notes.wait(Unwritable, 0)
    notes.wait(Written, 0)
    assert notes.of(0) == [Unwritable, Written]


def test_an_eviction_tries_again(store, notes, residents_of):
    residents = residents_of(store, n_states=1)
    with broken(store):
        hold(residents, 0, Chance.REAL, 24 * HOUR)
        notes.wait(Unwritable, 0)
    hold(residents, 1, Chance.SURE, 48 * HOUR)
    notes.wait(Evicted, 0)
    assert notes.of(0) == [Unwritable, Written, Evicted]


@pytest.mark.parametrize("has_failed", [True, False])
def test_what_cannot_be_written_when_all_leave_is_dropped_with_the_error(
    store, notes, residents_of, has_failed
):
    residents = residents_of(store, durability=NEVER)
    with broken(store):
        hold(residents, 0, Chance.SURE if has_failed else Chance.REAL)
        if has_failed:
            notes.wait(Unwritable, 0)
        hold(residents, 1, Chance.POOR, 0.0)
        residents.flush(leaving=True)
    assert notes.of(0) == [Unwritable, Dropped]
    assert notes.of(1) == [Dropped]
    reason = next(note.reason for note in notes.all if (type(note), note.ref.row) == (Dropped, 0))
    assert "could not be written: CheckpointNotWritten" in reason
    assert residents.n_bytes <= 2 * SIZE  # buffers
    assert residents.rows == []


def test_the_thread_outlives_an_error_that_nobody_expected(store, notes, residents_of, caplog):
    class Odd(Gate):
        def write_snapshot(self, ref, snap):
            if ref.row == 0:
                raise ZeroDivisionError("odd")
            return self.store.write_snapshot(ref, snap)

    residents = residents_of(Odd(store))
    hold(residents, 0, Chance.SURE)
    hold(residents, 1, Chance.SURE)
    notes.wait(Unwritable, 0)
    notes.wait(Written, 1)
    assert notes.of(0) == [Unwritable]
    assert "ZeroDivisionError: odd" in notes.all[notes.brief.index((Unwritable, 0))].error
    assert "ZeroDivisionError" in caplog.text
    residents.forget(0)


# -- staging -------------------------------------------------------------------------------------


def staged_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_state_lands_in_staging_first_and_counts_when_it_is_in_the_store(
    gate, notes, residents_of, tmp_path
):
    residents = residents_of(gate, staging=tmp_path / "local" / "disk")
    hold(residents, 0, Chance.SURE)
    gate.wait_for_writer()
    (file,) = staged_files(tmp_path / "local")
    assert file.stat().st_size == SIZE
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert notes.all == []
    assert residents.n_bytes <= SIZE  # the buffer that its memory became
    assert residents.buffer(SIZE) is not None
    assert residents.n_bytes == 0
    held = residents.fetch(0)
    assert not held.snapshot.row.flags.writeable
    gate.open.set()
    notes.wait(Written, 0)
    assert_same_state(gate.store.read(notes.refs()[0]), a_state(0))
    residents.close()
    assert list((tmp_path / "local" / "disk").iterdir()) == []
    assert_same_state(restore(held.snapshot), a_state(0))  # the map outlives the file


def test_a_parked_state_is_not_staged(store, residents_of, tmp_path):
    residents = residents_of(store, staging=tmp_path / "disk", durability=NEVER)
    hold(residents, 0)
    residents.flush(leaving=False)
    assert staged_files(tmp_path / "disk") == []
    assert residents.n_bytes == SIZE


def test_memory_is_free_as_soon_as_states_are_staged(gate, notes, residents_of, tmp_path):
    residents = residents_of(gate, n_states=1, staging=tmp_path / "disk")
    for row in range(6):
        hold(residents, row, Chance.SURE)
        if row == 0:
            gate.wait_for_writer()
            # the thread stands at the gate: what comes now can only be staged once it is through
            gate.open.set()
            notes.wait(Written, 0)
        residents.flush(leaving=False)
    assert residents.n_bytes <= SIZE
    assert {kind for kind, _ in notes.brief} == {Written, Evicted}
    # of what is written, the folder keeps as much as the memory might
    assert len(residents.rows) == 1
    assert_same_state(restore(residents.fetch(residents.rows[0]).snapshot), a_state(5))


def test_files_of_forgotten_states_are_removed(store, notes, residents_of, tmp_path):
    residents = residents_of(store, staging=tmp_path / "disk")
    hold(residents, 0, Chance.SURE)
    notes.wait(Written, 0)
    assert len(staged_files(tmp_path / "disk")) == 1
    residents.forget(0)
    hold(residents, 1, Chance.SURE)  # the thread removes files before it writes
    notes.wait(Written, 1)
    assert len(staged_files(tmp_path / "disk")) == 1


def test_a_folder_that_cannot_be_made_is_told_once_and_done_without(
    store, notes, residents_of, tmp_path, caplog
):
    (tmp_path / "disk").write_text("a file")
    residents = residents_of(store, staging=tmp_path / "disk")
    for row in range(3):
        hold(residents, row, Chance.SURE)
    residents.flush(leaving=False)
    assert [kind for kind, _ in notes.brief] == [Written] * 3
    assert caplog.text.count("without staging") == 1


def test_states_go_straight_to_the_store_when_staging_fails(
    store, notes, residents_of, tmp_path, caplog
):
    residents = residents_of(store, staging=tmp_path / "disk")
    (own,) = (tmp_path / "disk").iterdir()
    own.rmdir()
    for row in range(3):
        hold(residents, row, Chance.SURE)
    residents.flush(leaving=False)
    for row in range(3):
        assert_same_state(store.read(notes.refs()[row]), a_state(row))
    assert residents.rows == [0, 1, 2]
    assert caplog.text.count("without staging") == 1


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from daskhpo.checkpoints.codec import snapshot
from daskhpo.checkpoints.shelf import MAX_BUFFERS
from daskhpo.checkpoints.staging import Staging

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
staging = Staging(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
staging.put(snapshot({"w": np.ones(1000)}, 0, 1))
try:
    staging.put(snapshot({"w": np.ones(100_000)}, 0, 1))
except OSError as error:
    print(error.strerror, len(list(staging.path.iterdir())))
"""


def test_a_file_that_cannot_be_completed_is_removed(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["File", "too", "large", "1"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path):
    script = (
        "import sys; from pathlib import Path; from daskhpo.checkpoints.staging import Staging; "
        "staging = Staging(Path(sys.argv[1])); (staging.path / '0').write_text('x'); "
        "print(staging.path.name, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        theirs = tmp_path / child.stdout.readline().decode().strip()
        first = Staging(tmp_path)
        assert (theirs / "0").exists()
        child.kill()
        child.wait()
    second = Staging(tmp_path)
    assert set(tmp_path.iterdir()) == {first.path, second.path}
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == []


# -- the job's end -------------------------------------------------------------------------------


def test_shortly_before_the_jobs_end_all_that_is_worth_it_is_written_and_stays(
    store, notes, residents_of, monkeypatch
):
    monkeypatch.setattr(residents_module, "LOOK_SECONDS", 0.01)
    left = [HOUR]
    looks = threading.Semaphore(0)

    def seconds_left():
        looks.release()
        return left[0]

    residents = residents_of(store, durability=NEVER, seconds_left=seconds_left)
    hold(residents, 0, Chance.REAL, HOUR)
    hold(residents, 1, Chance.REAL, 1e-3)
    hold(residents, 2, Chance.POOR, 1000 * HOUR)
    for _ in range(3):
        assert looks.acquire(timeout=SECONDS)
    assert notes.all == []
    left[0] = 29.0
    notes.wait(Written, 0)
    notes.wait(Written, 2)
    hold(residents, 3, Chance.REAL, HOUR)
    notes.wait(Written, 3)
    assert residents.rows == [0, 1, 2, 3]
    assert len(notes.all) == 3


def test_the_more_there_is_to_write_the_earlier_it_begins(store, notes, residents_of, monkeypatch):
    monkeypatch.setattr(residents_module, "ENDING_SECONDS", 0.1)
    monkeypatch.setattr(residents_module, "LOOK_SECONDS", 0.01)
    residents = residents_of(store, durability=NEVER, seconds_left=lambda: 1.0)
    hold(residents, 0)  # 3 times 20 ms are less than a second
    residents.flush(leaving=False)
    assert notes.all == []
    for row in range(1, 30):  # 3 times 30 times 20 ms are more
        hold(residents, row)
    notes.wait(Written, 0)


def test_a_clock_that_fails_is_logged_once(store, notes, residents_of, caplog):
    residents = residents_of(store, seconds_left=lambda: 1 / 0)
    for row in range(3):
        hold(residents, row, Chance.SURE)
    residents.flush(leaving=False)
    assert len(notes.all) == 3
    assert caplog.text.count("seconds_left failed") == 1


# -- anything, in any order ----------------------------------------------------------------------


class Fickle:
    """A real store whose disk can be broken between two writes."""

    def __init__(self, path):
        self.store = ZarrStore(path)
        self.lock = threading.Lock()
        self.damage = None

    def write_snapshot(self, ref, snap):
        with self.lock:
            return self.store.write_snapshot(ref, snap)

    def break_or_repair(self):
        with self.lock:
            if self.damage is None:
                self.damage = broken(self.store)
                self.damage.__enter__()
            else:
                self.damage.__exit__(None, None, None)
                self.damage = None


ROWS = st.integers(0, 9)
OPERATIONS = st.one_of(
    st.tuples(
        st.just("hold"),
        st.sampled_from(Chance),
        st.sampled_from([0.0, 0.5, 5.0, 500.0, 1e6]),
        st.booleans(),
    ),
    st.tuples(st.just("forget"), ROWS),
    st.tuples(st.just("fetch"), ROWS),
    st.tuples(st.just("write"), ROWS),
    st.tuples(st.just("flush"), st.booleans(), st.booleans()),
    st.tuples(st.just("break or repair")),
)
LETTER = {Written: "W", Evicted: "E", Dropped: "D", Unwritable: "U"}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(OPERATIONS, max_size=40),
    st.sampled_from([0.5, 1, 2, 3.5, 100]),
    st.sampled_from([0.0, 100.0, NEVER]),
    st.booleans(),
)
def test_every_state_comes_to_exactly_one_end(operations, n_states, durability, is_staged):
    notes, forgotten, n_held = Notes(), set(), 0
    folder = Path(tempfile.mkdtemp())
    disk = Fickle(folder / "store" / "checkpoints")
    residents = Residents(
        disk,
        notes,
        capacity=int(n_states * SIZE),
        durability=durability,
        staging=folder / "disk" if is_staged else None,
    )
    try:
        for what, *args in operations:
            match what, args:
                case "hold", [chance, unsaved, use_buffer]:
                    buffer = residents.buffer(SIZE) if use_buffer else None
                    hold(residents, n_held, chance, unsaved, buffer)
                    n_held += 1
                case "forget", [row] if row < n_held:
                    residents.forget(row)
                    forgotten.add(row)
                case "fetch", [row]:
                    if (held := residents.fetch(row)) is not None:
                        assert_same_state(restore(held.snapshot), a_state(row))
                case "write", [row]:
                    residents.write(row)
                case "flush", [leaving, write]:
                    residents.flush(leaving=leaving, write=write)
                    if leaving:
                        assert residents.rows == []
                case "break or repair", []:
                    disk.break_or_repair()
            # what over-runs: two states on their way out, and one that was forgotten in its write
            assert residents.n_bytes <= (n_states + 3) * SIZE
            held = len(residents.rows)  # buffers and a forgotten state in its write come on top
            assert residents.n_bytes <= (held + MAX_BUFFERS + 1) * SIZE
        residents.close()
        assert residents.n_bytes == 0
        assert residents.rows == []
        for row in range(n_held):
            story = "".join(LETTER[kind] for kind in notes.of(row))
            ends = r"U?(WE?|D)?" if row in forgotten else r"U?(WE|D)"
            assert re.fullmatch(ends, story), (row, story)
        if disk.damage is not None:
            disk.break_or_repair()
        for row, ref in notes.refs().items():
            assert_same_state(disk.store.read(ref), a_state(row))
        assert {ref.row for ref in disk.store.list()} == set(notes.refs())
        assert not is_staged or list((folder / "disk").iterdir()) == []
    finally:
        with suppress(OSError):
            residents.close()
        shutil.rmtree(folder)
