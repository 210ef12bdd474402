"""The cache's thread on real zarr files; its decisions: `test_cache_state`."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.checkpoints import ZarrStore, cache_state
from daskhpo.checkpoints import cache as cache_module
from daskhpo.checkpoints.cache import StateCache
from daskhpo.checkpoints.cache_entries import MAX_BUFFERS
from daskhpo.checkpoints.codec import restore
from daskhpo.core.events import Dropped, Saved, SaveFailed
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
    id_of,
)

CERTAIN, LIKELY, UNLIKELY = ReuseProbability


def test_a_sure_state_is_written_without_being_asked_for(store, notes, residents_of):
    hold(residents_of(store), 3, CERTAIN, 0.0)
    notes.wait(Saved, 3)
    assert_same_state(store.read(notes.refs()[3]), a_state(3))
    assert [event.attempt for event in notes.all] == [7]


def test_a_parked_state_is_written_when_that_is_asked_for(store, notes, residents_of):
    cache = residents_of(store, durability=NEVER)
    hold(cache, 3)
    cache.flush()
    assert notes.all == []
    cache.write(3)
    cache.flush()
    assert_same_state(store.read(notes.refs()[3]), a_state(3))


def test_what_is_told_to_be_evicted_can_be_read(store, notes, residents_of):
    cache = residents_of(store)
    hold(cache, 3)
    cache.close()
    assert notes.of(3) == [Saved, Dropped]
    assert_same_state(store.read(notes.refs()[3]), a_state(3))


def test_all_can_be_let_go_of_without_a_write(store, notes, residents_of):
    cache = residents_of(store, durability=NEVER)
    hold(cache, 0, CERTAIN)
    notes.wait(Saved, 0)
    hold(cache, 1)
    cache.clear(write=False)
    assert notes.of(1) == [Dropped]
    assert [ref.id for ref in store.list()] == [0]
    assert cache.ids == []


def test_hold_does_not_wait_for_the_disk(gate, notes, residents_of):
    cache = residents_of(gate)
    for row in range(3):
        hold(cache, row, CERTAIN)
    gate.wait_for_writer()
    assert cache.ids == [0, 1, 2]
    assert notes.all == []
    assert cache.flush_seconds() > 0


@pytest.mark.parametrize(("name", "value"), [("capacity", -1), ("durability", -1.0)])
def test_arguments_are_checked(store, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        StateCache(store, print, **{"capacity": 1, name: value})


def test_a_row_is_held_once(store, residents_of):
    cache = residents_of(store)
    hold(cache, 3)
    with pytest.raises(ValueError, match="checkpoint 3 is held already"):
        hold(cache, 3)


def test_a_held_state_comes_back_equal_and_stays_as_it_is(store, residents_of):
    cache = residents_of(store, durability=NEVER)
    hold(cache, 3, unsaved=12.5)
    for _ in range(2):
        held = cache.get(3)
        state = restore(held.snapshot)
        assert_same_state(state, a_state(3))
        state["model"]["w"][:] = -1
    assert held.unsaved_seconds == 12.5
    assert cache.get(4) is None


def test_a_looked_up_state_outlives_its_eviction(store, residents_of):
    cache = residents_of(store)
    hold(cache, 3)
    held = cache.get(3)
    cache.clear(write=True)
    assert cache.get(3) is None
    assert cache.take_buffer(SIZE) is None
    assert_same_state(restore(held.snapshot), a_state(3))


def test_memory_of_a_state_that_left_is_used_again(store, residents_of):
    cache = residents_of(store)
    first = hold(cache, 0, CERTAIN)
    cache.clear(write=True)
    buffer = cache.take_buffer(SIZE)
    assert buffer is first.buffer
    hold(cache, 1, buffer=buffer)
    assert_same_state(restore(cache.get(1).snapshot), a_state(1))
    assert cache.n_bytes == SIZE


# -- the thread ----------------------------------------------------------------------------------


def test_close_ends_the_thread_and_may_be_repeated(store, notes):
    before = set(threading.enumerate())
    cache = StateCache(store, notes, capacity=10 * SIZE)
    hold(cache, 0)
    assert set(threading.enumerate()) - before
    cache.close()
    cache.close()
    assert set(threading.enumerate()) <= before
    hold(cache, 1, CERTAIN)
    cache.clear(write=True)
    assert notes.brief == [(Saved, 0), (Dropped, 0), (Dropped, 1)]
    assert cache.ids == []
    assert cache.take_buffer(SIZE) is None


def test_no_thread_is_started_before_anything_is_held(store, notes):
    before = set(threading.enumerate())
    cache = StateCache(store, notes, capacity=SIZE)
    cache.flush()
    cache.clear(write=True)
    assert set(threading.enumerate()) <= before
    cache.close()
    hold(cache, 0)
    assert set(threading.enumerate()) <= before


def test_close_waits_for_the_write_in_flight(gate, notes, residents_of):
    cache = residents_of(gate)
    hold(cache, 0, CERTAIN)
    gate.wait_for_writer()
    closing = threading.Thread(target=cache.close)
    closing.start()
    assert notes.all == []
    gate.open.set()
    closing.join()
    assert notes.brief == [(Saved, 0), (Dropped, 0)]


def test_a_state_that_cannot_be_written_stays_and_is_written_when_the_disk_is_repaired(
    store, notes, residents_of
):
    cache = residents_of(store)
    with broken(store):
        hold(cache, 0, CERTAIN)
        notes.wait(SaveFailed, 0)
        cache.flush()  # tried again, and told no more
        assert notes.of(0) == [SaveFailed]
        assert "NotWritten" in notes.all[0].error
        assert_same_state(restore(cache.get(0).snapshot), a_state(0))
    cache.flush()
    assert notes.of(0) == [SaveFailed, Saved]
    assert_same_state(store.read(notes.refs()[0]), a_state(0))


def test_the_thread_tries_again_by_itself(store, notes, residents_of, monkeypatch):
    monkeypatch.setattr(cache_module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(cache_state, "WRITE_RETRY_SECONDS", 0.02)
    cache = residents_of(store)
    with broken(store):
        hold(cache, 0, CERTAIN)
        notes.wait(SaveFailed, 0)
    notes.wait(Saved, 0)
    assert notes.of(0) == [SaveFailed, Saved]


@pytest.mark.parametrize("has_failed", [True, False])
def test_what_cannot_be_written_when_all_leave_is_dropped_with_the_error(
    store, notes, residents_of, has_failed
):
    cache = residents_of(store, durability=NEVER)
    with broken(store):
        hold(cache, 0, CERTAIN if has_failed else LIKELY)
        if has_failed:
            notes.wait(SaveFailed, 0)
        hold(cache, 1, UNLIKELY, 0.0)
        cache.clear(write=True)
    assert notes.of(0) == [SaveFailed, Dropped]
    assert notes.of(1) == [Dropped]
    assert "could not be written: CheckpointNotWritten" in notes.reason(0)
    assert cache.n_bytes <= 2 * SIZE  # buffers
    assert cache.ids == []


def test_the_thread_outlives_an_error_that_nobody_expected(store, notes, residents_of, caplog):
    class Odd(Gate):
        def write_snapshot(self, ref, snap):
            if ref.id == 0:
                raise ZeroDivisionError("odd")
            return self.store.write_snapshot(ref, snap)

    cache = residents_of(Odd(store))
    hold(cache, 0, CERTAIN)
    hold(cache, 1, CERTAIN)
    notes.wait(SaveFailed, 0)
    notes.wait(Saved, 1)
    assert notes.of(0) == [SaveFailed]
    assert "ZeroDivisionError: odd" in notes.all[notes.brief.index((SaveFailed, 0))].error
    assert "ZeroDivisionError" in caplog.text
    cache.discard(0)


def test_the_thread_asks_for_the_time_left_while_it_holds_states(
    store, notes, residents_of, monkeypatch
):
    monkeypatch.setattr(cache_module, "TICK_SECONDS", 0.01)
    left = [HOUR]
    looks = threading.Semaphore(0)

    def seconds_left():
        looks.release()
        return left[0]

    cache = residents_of(store, durability=NEVER, seconds_left=seconds_left)
    hold(cache, 0)
    for _ in range(3):
        assert looks.acquire(timeout=SECONDS)
    assert notes.all == []
    left[0] = 29.0
    notes.wait(Saved, 0)
    assert cache.ids == [0]


def test_the_thread_asks_for_the_time_left_between_two_writes(store, residents_of, monkeypatch):
    monkeypatch.setattr(cache_module, "TICK_SECONDS", 0.0)
    looks, seen = [], []

    class Counting(Gate):
        def write_snapshot(self, ref, snap):
            seen.append(len(looks))
            return self.store.write_snapshot(ref, snap)

    cache = residents_of(Counting(store), seconds_left=lambda: looks.append(1))
    for row in range(5):
        hold(cache, row, CERTAIN)
    cache.flush()
    assert len(seen) == 5
    assert seen == sorted(set(seen))


def test_a_clock_that_fails_is_logged_once(store, notes, residents_of, caplog):
    cache = residents_of(store, seconds_left=lambda: 1 / 0)
    for row in range(3):
        hold(cache, row, CERTAIN)
    cache.flush()
    assert len(notes.all) == 3
    assert caplog.text.count("seconds_left failed") == 1


# -- delivery ------------------------------------------------------------------------------------


def test_events_come_one_at_a_time_and_in_order(store, notes):
    entered, go, at_once = threading.Event(), threading.Event(), threading.Lock()

    def tell(event):
        assert at_once.acquire(blocking=False)
        if isinstance(event, Saved):
            entered.set()
            assert go.wait(SECONDS)
        notes(event)
        at_once.release()

    cache = StateCache(store, tell, capacity=SIZE, durability=NEVER)
    hold(cache, 0, CERTAIN)
    assert entered.wait(SECONDS)  # the thread is telling that row 0 is written
    hold(cache, 1, LIKELY)  # which pushes it out
    seen = []

    def flush():
        cache.flush()
        seen.extend(notes.brief)

    hold(cache, 2, UNLIKELY, 0.0)
    flushing = threading.Thread(target=flush)
    flushing.start()
    go.set()
    flushing.join()
    assert seen == [(Saved, 0), (Dropped, 0), (Dropped, 2)]
    cache.close()


def test_a_clear_waits_for_the_write_of_a_discarded_state(gate, notes, residents_of):
    cache = residents_of(gate)
    hold(cache, 0, CERTAIN)
    gate.wait_for_writer()
    cache.discard(0)
    hold(cache, 1, UNLIKELY, 0.0)
    seen = []

    def clear():
        cache.clear(write=True)
        seen.extend(notes.brief)

    clearing = threading.Thread(target=clear)
    clearing.start()
    notes.wait(Dropped, 1)  # so it has begun
    gate.open.set()
    clearing.join()
    assert seen == [(Dropped, 1), (Saved, 0)]


def test_a_listener_that_raises_is_logged_and_hears_the_rest(store, notes, caplog):
    def tell(event):
        notes(event)
        if id_of(event) == 0:
            raise LookupError("no such row")

    cache = StateCache(store, tell, capacity=10 * SIZE)
    hold(cache, 0, CERTAIN)
    hold(cache, 1, CERTAIN)
    cache.close()
    assert sorted(notes.brief, key=str) == sorted(
        itertools.product((Saved, Dropped), (0, 1)), key=str
    )
    assert "no such row" in caplog.text


def test_what_an_interrupt_kept_back_is_delivered_by_the_next_call(store, notes):
    def tell(event):
        notes(event)
        if id_of(event) == 0:
            raise KeyboardInterrupt

    cache = StateCache(store, tell, capacity=10 * SIZE)
    for row in range(2):
        hold(cache, row, UNLIKELY, 0.0)
    with pytest.raises(KeyboardInterrupt):
        cache.clear(write=True)
    assert notes.brief == [(Dropped, 0)]
    cache.flush()
    assert notes.brief == [(Dropped, 0), (Dropped, 1)]
    cache.close()


@pytest.mark.parametrize(
    "wait", [StateCache.flush, StateCache.close, lambda cache: cache.clear(write=True)]
)
def test_a_listener_may_discard_but_not_wait(store, notes, caplog, wait):
    def tell(event):
        notes(event)
        cache.discard(id_of(event))
        wait(cache)

    cache = StateCache(store, tell, capacity=10 * SIZE)
    hold(cache, 0, CERTAIN)
    cache.flush()
    assert notes.brief == [(Saved, 0)]
    assert cache.ids == []
    assert "tell must not call flush, clear or close" in caplog.text
    cache.close()


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
    st.tuples(st.just("discard"), ROWS),
    st.tuples(st.just("fetch"), ROWS),
    st.tuples(st.just("write"), ROWS),
    st.tuples(st.just("flush")),
    st.tuples(st.just("clear"), st.booleans()),
    st.tuples(st.just("break or repair")),
)
LETTER = {Saved: "S", Dropped: "D", SaveFailed: "F"}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(OPERATIONS, max_size=40),
    st.sampled_from([0.5, 1, 2, 3.5, 100]),
    st.sampled_from([0.0, 100.0, NEVER]),
    st.booleans(),
)
def test_every_state_comes_to_exactly_one_end(operations, n_states, durability, is_staged):
    notes, discarded, n_held = Notes(), set(), 0
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
                case "discard", [row] if row < n_held:
                    cache.discard(row)
                    discarded.add(row)
                case "fetch", [row]:
                    if (held := cache.get(row)) is not None:
                        assert_same_state(restore(held.snapshot), a_state(row))
                case "write", [row]:
                    cache.write(row)
                case "flush", []:
                    cache.flush()
                case "clear", [write]:
                    cache.clear(write=write)
                    assert cache.ids == []
                case "break or repair", []:
                    disk.break_or_repair()
            # what over-runs: two states on their way out, and one that was discarded in its write
            assert cache.n_bytes <= (n_states + 3) * SIZE
            held = len(cache.ids)  # buffers and a discarded state in its write come on top
            assert cache.n_bytes <= (held + MAX_BUFFERS + 1) * SIZE
        cache.close()
        assert cache.n_bytes == 0
        assert cache.ids == []
        for row in range(n_held):
            story = "".join(LETTER[kind] for kind in notes.of(row))
            ends = r"F?S?D?" if row in discarded else r"F?S?D"
            assert re.fullmatch(ends, story), (row, story)
        if disk.damage is not None:
            disk.break_or_repair()
        for row, ref in notes.refs().items():
            assert_same_state(disk.store.read(ref), a_state(row))
        assert {ref.id for ref in disk.store.list()} == set(notes.refs())
        assert list(folder.glob("disk/*")) == []
    finally:
        with suppress(OSError):
            cache.close()
        shutil.rmtree(folder)
