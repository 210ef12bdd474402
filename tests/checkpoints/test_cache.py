from __future__ import annotations

import re
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.checkpoints import ZarrStore
from daskhpo.checkpoints import cache as cache_module
from daskhpo.checkpoints.cache import StateCache
from daskhpo.checkpoints.cache_entries import MAX_BUFFERS
from daskhpo.checkpoints.cache_events import StateDropped, StateEvicted, StateWritten, WriteFailed
from daskhpo.checkpoints.codec import restore
from daskhpo.checkpoints.write_policy import WriteCost
from daskhpo.core.types import ReuseProbability
from daskhpo.testing.stores import a_state, assert_same_state
from tests.checkpoints.caching import (
    HOUR,
    NEVER,
    SECONDS,
    SIZE,
    Gate,
    Notes,
    broken,
    hold,
)

# -- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chance", "unsaved", "durability", "staying", "leaving"),
    [
        (ReuseProbability.CERTAIN, 0.0, NEVER, [StateWritten], [StateEvicted]),
        (ReuseProbability.LIKELY, 24 * HOUR, 100, [StateWritten], [StateEvicted]),
        (ReuseProbability.LIKELY, HOUR, NEVER, [], [StateWritten, StateEvicted]),
        (ReuseProbability.LIKELY, 1e-3, 100, [], [StateDropped]),
        (ReuseProbability.UNLIKELY, 1000 * HOUR, 100, [StateWritten], [StateEvicted]),
        (ReuseProbability.UNLIKELY, 1000 * HOUR, NEVER, [], [StateWritten, StateEvicted]),
        (ReuseProbability.UNLIKELY, 1.0, 100, [], [StateDropped]),
        (ReuseProbability.UNLIKELY, 1.0, 0, [StateWritten], [StateEvicted]),
    ],
)
def test_a_state_is_written_when_that_is_worth_it(
    store, notes, residents_of, chance, unsaved, durability, staying, leaving
):
    cache = residents_of(store, durability=durability)
    hold(cache, 3, chance, unsaved)
    cache.flush(leaving=False)
    assert notes.of(3) == staying
    assert cache.ids == [3]
    cache.flush(leaving=True)
    assert notes.of(3) == staying + leaving
    assert cache.ids == []


def test_a_sure_state_is_written_without_being_asked_for(store, notes, residents_of):
    hold(residents_of(store), 3, ReuseProbability.CERTAIN, 0.0)
    notes.wait(StateWritten, 3)
    assert_same_state(store.read(notes.refs()[3]), a_state(3))
    assert [note.attempt for note in notes.all] == [7]


def test_what_is_told_to_be_evicted_can_be_read(store, notes, residents_of):
    cache = residents_of(store)
    hold(cache, 3)
    cache.close()
    assert notes.of(3) == [StateWritten, StateEvicted]
    assert notes.all[0].ref == notes.all[1].ref
    assert_same_state(store.read(notes.all[1].ref), a_state(3))


def test_a_parked_state_can_be_asked_to_be_written(store, notes, residents_of):
    cache = residents_of(store)
    hold(cache, 3, ReuseProbability.UNLIKELY, 0.0)
    assert cache.write(3)
    assert not cache.write(4)
    notes.wait(StateWritten, 3)
    assert_same_state(store.read(notes.refs()[3]), a_state(3))


def test_hold_does_not_wait_for_the_disk(gate, notes, residents_of):
    cache = residents_of(gate)
    for row in range(3):
        hold(cache, row, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    assert cache.ids == [0, 1, 2]
    assert notes.all == []


def test_the_most_urgent_is_written_first(gate, notes, residents_of):
    cache = residents_of(gate, durability=1.0)
    hold(cache, 0, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    hold(cache, 1, ReuseProbability.UNLIKELY, 1000 * HOUR)
    hold(cache, 2, ReuseProbability.LIKELY, 20 * HOUR)
    hold(cache, 3, ReuseProbability.CERTAIN, 0.0)
    hold(cache, 4, ReuseProbability.LIKELY, 30 * HOUR)
    gate.open.set()
    cache.flush(leaving=False)
    assert notes.brief == [(StateWritten, row) for row in (0, 3, 4, 2, 1)]


def test_a_row_is_held_once(store, residents_of):
    cache = residents_of(store)
    hold(cache, 3)
    with pytest.raises(ValueError, match="checkpoint 3 is held already"):
        hold(cache, 3)


@pytest.mark.parametrize(("name", "value"), [("capacity", -1), ("durability", -1.0)])
def test_arguments_are_checked(store, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        StateCache(store, print, **{"capacity": 1, name: value})


def test_the_cost_of_a_write_is_learnt(store, residents_of):
    cache = residents_of(store)
    hold(cache, 0, ReuseProbability.CERTAIN)
    cache.flush(leaving=False)
    assert cache._cost.seconds(SIZE) != WriteCost().seconds(SIZE)


# -- fetch, forget -------------------------------------------------------------------------------


def test_a_held_state_comes_back_equal_and_stays_as_it_is(store, notes, residents_of):
    cache = residents_of(store, durability=NEVER)
    hold(cache, 3, unsaved=12.5)
    for _ in range(2):
        held = cache.get(3)
        state = restore(held.snapshot)
        assert_same_state(state, a_state(3))
        state["model"]["w"][:] = -1
    assert (held.unsaved_seconds, held.is_written) == (12.5, False)
    cache.write(3)
    notes.wait(StateWritten, 3)
    held = cache.get(3)
    assert (held.unsaved_seconds, held.is_written) == (0.0, True)
    assert cache.get(4) is None


def test_a_fetched_state_outlives_its_eviction(store, residents_of):
    cache = residents_of(store)
    hold(cache, 3)
    held = cache.get(3)
    cache.flush(leaving=True)
    assert cache.get(3) is None
    assert_same_state(restore(held.snapshot), a_state(3))


def test_a_forgotten_state_is_not_written(gate, notes, residents_of):
    cache = residents_of(gate)
    hold(cache, 0, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    hold(cache, 1, ReuseProbability.CERTAIN)
    hold(cache, 2, ReuseProbability.UNLIKELY, 0.0)
    for row in (1, 2, 99):
        cache.discard(row)
    gate.open.set()
    cache.close()
    assert notes.brief == [(StateWritten, 0), (StateEvicted, 0)]
    assert [ref.id for ref in gate.store.list()] == [0]


def test_a_write_in_flight_is_told_although_its_state_was_forgotten(gate, notes, residents_of):
    cache = residents_of(gate)
    hold(cache, 0, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    cache.discard(0)
    assert cache.get(0) is None
    assert cache.n_bytes == SIZE  # which the thread still reads
    assert cache.take_buffer(SIZE) is None
    gate.open.set()
    cache.close()
    assert notes.brief == [(StateWritten, 0)]
    assert cache.n_bytes == 0


# -- flush, close --------------------------------------------------------------------------------


def test_all_can_be_let_go_of_without_a_write(store, notes, residents_of):
    cache = residents_of(store, durability=NEVER)
    hold(cache, 0, ReuseProbability.CERTAIN)
    notes.wait(StateWritten, 0)
    hold(cache, 1, unsaved=HOUR)
    cache.flush(leaving=True, write=False)
    assert notes.brief == [(StateWritten, 0), (StateEvicted, 0), (StateDropped, 1)]
    assert cache.ids == []


def test_after_a_flush_states_are_held_again(store, residents_of):
    cache = residents_of(store)
    hold(cache, 0)
    cache.flush(leaving=True)
    hold(cache, 1, unsaved=1e-3)
    assert cache.ids == [1]


def test_what_comes_while_all_leave_leaves_too(gate, notes, residents_of):
    cache = residents_of(gate)
    hold(cache, 0, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    flushing = threading.Thread(target=lambda: cache.flush(leaving=True))
    hold(cache, 1, ReuseProbability.UNLIKELY, 0.0)
    flushing.start()
    notes.wait(StateDropped, 1)  # so the flush has begun
    hold(cache, 2, ReuseProbability.UNLIKELY, 0.0)
    hold(cache, 3, ReuseProbability.CERTAIN, 0.0)
    gate.open.set()
    flushing.join()
    assert notes.of(2) == [StateDropped]
    assert notes.of(3) == [StateWritten, StateEvicted]


def test_close_ends_the_thread_and_may_be_repeated(store, notes):
    before = set(threading.enumerate())
    cache = StateCache(store, notes, capacity=10 * SIZE)
    hold(cache, 0)
    assert set(threading.enumerate()) - before
    cache.close()
    cache.close()
    assert set(threading.enumerate()) <= before
    hold(cache, 1, ReuseProbability.CERTAIN)
    cache.flush(leaving=True)
    assert notes.brief == [(StateWritten, 0), (StateEvicted, 0), (StateDropped, 1)]
    assert cache.ids == []
    assert cache.take_buffer(SIZE) is None


def test_no_thread_is_started_before_anything_is_held(store, notes):
    before = set(threading.enumerate())
    cache = StateCache(store, notes, capacity=SIZE)
    cache.flush(leaving=False)
    cache.flush(leaving=True)
    assert set(threading.enumerate()) <= before
    cache.close()


def test_close_waits_for_the_write_in_flight(gate, notes, residents_of):
    cache = residents_of(gate)
    hold(cache, 0, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    closing = threading.Thread(target=cache.close)
    closing.start()
    assert notes.all == []
    gate.open.set()
    closing.join()
    assert notes.brief == [(StateWritten, 0), (StateEvicted, 0)]


# -- a disk that fails ---------------------------------------------------------------------------


def test_a_state_that_cannot_be_written_stays_and_is_written_when_the_disk_is_repaired(
    store, notes, residents_of
):
    cache = residents_of(store)
    with broken(store):
        hold(cache, 0, ReuseProbability.CERTAIN)
        notes.wait(WriteFailed, 0)
        cache.flush(leaving=False)  # tried again, and told no more
        assert notes.of(0) == [WriteFailed]
        assert "NotWritten" in notes.all[0].error
        assert_same_state(restore(cache.get(0).snapshot), a_state(0))
    cache.flush(leaving=False)
    assert notes.of(0) == [WriteFailed, StateWritten]
    assert_same_state(store.read(notes.refs()[0]), a_state(0))


def test_the_thread_tries_again_by_itself(store, notes, residents_of, monkeypatch):
    monkeypatch.setattr(cache_module, "WRITE_RETRY_SECONDS", 0.02)
    cache = residents_of(store)
    with broken(store):
        hold(cache, 0, ReuseProbability.CERTAIN)
        notes.wait(WriteFailed, 0)
    notes.wait(StateWritten, 0)
    assert notes.of(0) == [WriteFailed, StateWritten]


def test_an_eviction_tries_again(store, notes, residents_of):
    cache = residents_of(store, n_states=1)
    with broken(store):
        hold(cache, 0, ReuseProbability.LIKELY, 24 * HOUR)
        notes.wait(WriteFailed, 0)
    hold(cache, 1, ReuseProbability.CERTAIN, 48 * HOUR)
    notes.wait(StateEvicted, 0)
    assert notes.of(0) == [WriteFailed, StateWritten, StateEvicted]


@pytest.mark.parametrize("has_failed", [True, False])
def test_what_cannot_be_written_when_all_leave_is_dropped_with_the_error(
    store, notes, residents_of, has_failed
):
    cache = residents_of(store, durability=NEVER)
    with broken(store):
        hold(cache, 0, ReuseProbability.CERTAIN if has_failed else ReuseProbability.LIKELY)
        if has_failed:
            notes.wait(WriteFailed, 0)
        hold(cache, 1, ReuseProbability.UNLIKELY, 0.0)
        cache.flush(leaving=True)
    assert notes.of(0) == [WriteFailed, StateDropped]
    assert notes.of(1) == [StateDropped]
    reason = next(
        note.reason for note in notes.all if (type(note), note.ref.id) == (StateDropped, 0)
    )
    assert "could not be written: CheckpointNotWritten" in reason
    assert cache.n_bytes <= 2 * SIZE  # buffers
    assert cache.ids == []


def test_the_thread_outlives_an_error_that_nobody_expected(store, notes, residents_of, caplog):
    class Odd(Gate):
        def write_snapshot(self, ref, snap):
            if ref.id == 0:
                raise ZeroDivisionError("odd")
            return self.store.write_snapshot(ref, snap)

    cache = residents_of(Odd(store))
    hold(cache, 0, ReuseProbability.CERTAIN)
    hold(cache, 1, ReuseProbability.CERTAIN)
    notes.wait(WriteFailed, 0)
    notes.wait(StateWritten, 1)
    assert notes.of(0) == [WriteFailed]
    assert "ZeroDivisionError: odd" in notes.all[notes.brief.index((WriteFailed, 0))].error
    assert "ZeroDivisionError" in caplog.text
    cache.discard(0)


# -- the job's end -------------------------------------------------------------------------------


def test_shortly_before_the_jobs_end_all_that_is_worth_it_is_written_and_stays(
    store, notes, residents_of, monkeypatch
):
    monkeypatch.setattr(cache_module, "DEADLINE_CHECK_SECONDS", 0.01)
    left = [HOUR]
    looks = threading.Semaphore(0)

    def seconds_left():
        looks.release()
        return left[0]

    cache = residents_of(store, durability=NEVER, seconds_left=seconds_left)
    hold(cache, 0, ReuseProbability.LIKELY, HOUR)
    hold(cache, 1, ReuseProbability.LIKELY, 1e-3)
    hold(cache, 2, ReuseProbability.UNLIKELY, 1000 * HOUR)
    for _ in range(3):
        assert looks.acquire(timeout=SECONDS)
    assert notes.all == []
    left[0] = 29.0
    notes.wait(StateWritten, 0)
    notes.wait(StateWritten, 2)
    hold(cache, 3, ReuseProbability.LIKELY, HOUR)
    notes.wait(StateWritten, 3)
    assert cache.ids == [0, 1, 2, 3]
    assert len(notes.all) == 3


def test_the_more_there_is_to_write_the_earlier_it_begins(store, notes, residents_of, monkeypatch):
    monkeypatch.setattr(cache_module, "SHUTDOWN_SECONDS", 0.1)
    monkeypatch.setattr(cache_module, "DEADLINE_CHECK_SECONDS", 0.01)
    cache = residents_of(store, durability=NEVER, seconds_left=lambda: 1.0)
    hold(cache, 0)  # 3 times 20 ms are less than a second
    cache.flush(leaving=False)
    assert notes.all == []
    for row in range(1, 30):  # 3 times 30 times 20 ms are more
        hold(cache, row)
    notes.wait(StateWritten, 0)


def test_a_clock_that_fails_is_logged_once(store, notes, residents_of, caplog):
    cache = residents_of(store, seconds_left=lambda: 1 / 0)
    for row in range(3):
        hold(cache, row, ReuseProbability.CERTAIN)
    cache.flush(leaving=False)
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
        st.sampled_from(ReuseProbability),
        st.sampled_from([0.0, 0.5, 5.0, 500.0, 1e6]),
        st.booleans(),
    ),
    st.tuples(st.just("forget"), ROWS),
    st.tuples(st.just("fetch"), ROWS),
    st.tuples(st.just("write"), ROWS),
    st.tuples(st.just("flush"), st.booleans(), st.booleans()),
    st.tuples(st.just("break or repair")),
)
LETTER = {StateWritten: "W", StateEvicted: "E", StateDropped: "D", WriteFailed: "U"}


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
    cache = StateCache(
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
                    buffer = cache.take_buffer(SIZE) if use_buffer else None
                    hold(cache, n_held, chance, unsaved, buffer)
                    n_held += 1
                case "forget", [row] if row < n_held:
                    cache.discard(row)
                    forgotten.add(row)
                case "fetch", [row]:
                    if (held := cache.get(row)) is not None:
                        assert_same_state(restore(held.snapshot), a_state(row))
                case "write", [row]:
                    cache.write(row)
                case "flush", [leaving, write]:
                    cache.flush(leaving=leaving, write=write)
                    if leaving:
                        assert cache.ids == []
                case "break or repair", []:
                    disk.break_or_repair()
            # what over-runs: two states on their way out, and one that was forgotten in its write
            assert cache.n_bytes <= (n_states + 3) * SIZE
            held = len(cache.ids)  # buffers and a forgotten state in its write come on top
            assert cache.n_bytes <= (held + MAX_BUFFERS + 1) * SIZE
        cache.close()
        assert cache.n_bytes == 0
        assert cache.ids == []
        for row in range(n_held):
            story = "".join(LETTER[kind] for kind in notes.of(row))
            ends = r"U?(WE?|D)?" if row in forgotten else r"U?(WE|D)"
            assert re.fullmatch(ends, story), (row, story)
        if disk.damage is not None:
            disk.break_or_repair()
        for row, ref in notes.refs().items():
            assert_same_state(disk.store.read(ref), a_state(row))
        assert {ref.id for ref in disk.store.list()} == set(notes.refs())
        assert not is_staged or list((folder / "disk").iterdir()) == []
    finally:
        with suppress(OSError):
            cache.close()
        shutil.rmtree(folder)
