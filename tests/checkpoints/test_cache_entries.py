from __future__ import annotations

import numpy as np
import pytest

from daskhpo.checkpoints.cache_entries import MAX_BUFFERS
from daskhpo.checkpoints.cache_events import StateDropped, StateEvicted, StateWritten
from daskhpo.checkpoints.codec import Snapshot, restore, snapshot
from daskhpo.core.types import ReuseProbability
from daskhpo.testing.stores import a_ref, a_state, assert_same_state
from tests.checkpoints.caching import (
    HOUR,
    NEVER,
    SIZE,
    hold,
)


@pytest.mark.parametrize(
    ("held", "gone"),
    [
        # chance, unsaved seconds of each row; the row that leaves when a third comes
        (
            [
                (ReuseProbability.LIKELY, 1e-3),
                (ReuseProbability.UNLIKELY, 1e-2),
                (ReuseProbability.LIKELY, 1e-3),
            ],
            1,
        ),
        (
            [
                (ReuseProbability.LIKELY, 3e-3),
                (ReuseProbability.LIKELY, 2e-3),
                (ReuseProbability.LIKELY, 4e-3),
            ],
            1,
        ),
        (
            [
                (ReuseProbability.LIKELY, 1e-3),
                (ReuseProbability.LIKELY, 1e-3),
                (ReuseProbability.LIKELY, 1e-3),
            ],
            0,
        ),
        (
            [
                (ReuseProbability.LIKELY, 1e-3),
                (ReuseProbability.LIKELY, 1e-3),
                (ReuseProbability.UNLIKELY, 1.0),
            ],
            2,
        ),
        (
            [
                (ReuseProbability.UNLIKELY, 2.0),
                (ReuseProbability.UNLIKELY, 1.0),
                (ReuseProbability.CERTAIN, 0.0),
            ],
            1,
        ),
    ],
)
def test_poor_states_leave_first_and_then_those_with_the_least_to_lose(
    gate, notes, residents_of, held, gone
):
    cache = residents_of(gate, n_states=2)
    for row, (chance, unsaved) in enumerate(held):
        hold(cache, row, chance, unsaved)
    assert notes.brief == [(StateDropped, gone)]
    assert cache.ids == [row for row in range(3) if row != gone]


def test_of_equal_chances_what_is_written_leaves_first(store, notes, residents_of):
    cache = residents_of(store, n_states=2, durability=NEVER)
    hold(cache, 0, unsaved=1e-3)
    hold(cache, 1)
    cache.write(1)
    notes.wait(StateWritten, 1)
    hold(cache, 2)
    assert notes.brief == [(StateWritten, 1), (StateEvicted, 1)]
    assert cache.ids == [0, 2]


def test_what_is_worth_a_write_is_written_before_it_leaves(gate, notes, residents_of):
    cache = residents_of(gate, n_states=1, durability=NEVER)
    hold(cache, 0, unsaved=HOUR)
    hold(cache, 1, unsaved=2 * HOUR)
    gate.wait_for_writer()
    assert cache.ids == [0, 1]  # above the capacity, for as long as the write takes
    assert cache.n_bytes == 2 * SIZE
    gate.open.set()
    notes.wait(StateEvicted, 0)
    assert notes.brief == [(StateWritten, 0), (StateEvicted, 0)]
    assert cache.ids == [1]
    assert cache.n_bytes == SIZE


def test_when_the_disk_is_too_slow_the_least_loss_is_dropped(gate, notes, residents_of):
    cache = residents_of(gate, n_states=1, durability=NEVER)
    for row, hours in enumerate([2, 3, 1, 4]):
        hold(cache, row, unsaved=hours * HOUR)
        if row == 1:
            gate.wait_for_writer()  # with row 0, which is safe from then on
    # rows 0 and 1 over-run; when row 3 comes, row 1 or 2 has to go
    assert notes.brief == [(StateDropped, 2)]
    assert "memory was full" in notes.all[0].reason
    assert cache.n_bytes == 3 * SIZE
    gate.open.set()
    cache.flush(leaving=True)
    assert {row: notes.of(row) for row in (0, 1, 3)} == {
        row: [StateWritten, StateEvicted] for row in (0, 1, 3)
    }


def test_a_small_state_does_not_push_out_a_large_one_that_waits(gate, notes, residents_of):
    cache = residents_of(gate, n_states=0)
    for row in range(2):
        large = snapshot({"w": np.zeros(10 * SIZE, np.uint8)}, row, 1)
        cache.put(a_ref(row, trial=row), 7, large, ReuseProbability.CERTAIN, HOUR)
        if row == 0:
            gate.wait_for_writer()
    hold(cache, 2, ReuseProbability.UNLIKELY, 0.0)
    assert notes.brief == [(StateDropped, 2)]
    assert cache.ids == [0, 1]


@pytest.mark.parametrize(
    ("chance", "unsaved", "expected"),
    [
        (ReuseProbability.CERTAIN, 0.0, [StateWritten, StateEvicted]),
        (ReuseProbability.LIKELY, HOUR, [StateWritten, StateEvicted]),
        (ReuseProbability.LIKELY, 1e-3, [StateDropped]),
        (ReuseProbability.UNLIKELY, 1.0, [StateDropped]),
    ],
)
def test_a_state_larger_than_the_capacity_is_written_or_dropped_at_once(
    store, notes, residents_of, chance, unsaved, expected
):
    cache = residents_of(store, n_states=0.5, durability=NEVER)
    hold(cache, 5, chance, unsaved)
    notes.wait(expected[-1], 5)
    assert notes.of(5) == expected
    assert cache.n_bytes == 0


def test_a_state_that_can_never_stay_pushes_nothing_out(store, notes, residents_of):
    cache = residents_of(store, n_states=1)
    hold(cache, 0, ReuseProbability.UNLIKELY, 1e-3)
    large = snapshot({"w": np.zeros(10 * SIZE, np.uint8)}, 1, 1)
    cache.put(a_ref(1, trial=1), 7, large, ReuseProbability.LIKELY, 1e-2)
    assert notes.brief == [(StateDropped, 1)]
    assert cache.ids == [0]


def test_memory_of_a_state_that_left_is_used_again(store, residents_of):
    cache = residents_of(store)
    first = hold(cache, 0, unsaved=1e-3)
    assert cache.take_buffer(SIZE) is None
    cache.discard(0)
    assert cache.n_bytes == SIZE
    assert cache.take_buffer(SIZE + 64) is None
    buffer = cache.take_buffer(SIZE)
    assert np.shares_memory(buffer, first.buffer)
    assert cache.n_bytes == 0
    hold(cache, 1, buffer=buffer, unsaved=1e-3)
    assert_same_state(restore(cache.get(1).snapshot), a_state(1))


def test_memory_that_somebody_may_read_is_not_used_again(store, residents_of):
    cache = residents_of(store)
    hold(cache, 0, unsaved=1e-3)
    held = cache.get(0)
    cache.discard(0)
    assert cache.take_buffer(SIZE) is None
    assert_same_state(restore(held.snapshot), a_state(0))


def test_a_poor_state_gives_its_memory_to_the_next_one(store, notes, residents_of):
    cache = residents_of(store, n_states=2)
    hold(cache, 0, ReuseProbability.LIKELY, 1e-3)
    poor = hold(cache, 1, ReuseProbability.UNLIKELY, 1e-3)
    buffer = cache.take_buffer(SIZE)
    assert np.shares_memory(buffer, poor.buffer)
    hold(cache, 2, ReuseProbability.LIKELY, 1e-3, buffer=buffer)
    assert cache.take_buffer(SIZE) is None  # none but states with a real chance
    assert cache.n_bytes == 2 * SIZE
    assert notes.brief == [(StateDropped, 1)]
    assert_same_state(restore(cache.get(2).snapshot), a_state(2))


def test_a_poor_state_that_is_worth_a_write_keeps_its_memory(store, notes, residents_of):
    cache = residents_of(store, n_states=1, durability=NEVER)
    hold(cache, 0, ReuseProbability.UNLIKELY, 1000 * HOUR)
    assert cache.take_buffer(SIZE) is None
    cache.flush(leaving=False)
    assert cache.ids == [0]
    assert notes.all == []


def test_memory_that_cannot_be_written_to_is_no_buffer(store, residents_of):
    cache = residents_of(store)
    snap = snapshot(a_state(0), 0, 1)
    received = Snapshot(np.frombuffer(snap.buffer.tobytes(), np.uint8), snap.layout)
    cache.put(a_ref(0), 7, received, ReuseProbability.LIKELY, 1e-3)
    cache.discard(0)
    hold(cache, 1, unsaved=1e-3)
    cache.discard(1)
    assert cache.take_buffer(SIZE).flags.writeable
    assert cache.take_buffer(SIZE) is None


def test_buffers_of_another_size_make_room(store, residents_of):
    cache = residents_of(store, n_states=3)
    hold(cache, 0, unsaved=1e-3)
    other = snapshot({"w": np.zeros(SIZE // 2, np.uint8)}, 1, 1)
    assert SIZE < other.n_bytes < 2 * SIZE
    cache.put(a_ref(1, trial=1), 7, other, ReuseProbability.LIKELY, 1e-3)
    cache.discard(1)
    assert cache.n_bytes == SIZE + other.n_bytes
    assert cache.take_buffer(SIZE) is None
    assert cache.n_bytes == SIZE


def test_few_buffers_are_kept_and_within_the_capacity(store, residents_of):
    cache = residents_of(store, n_states=10)
    for row in range(10):
        hold(cache, row, unsaved=1e-3)
    for row in range(10):
        cache.discard(row)
        assert cache.n_bytes == (9 - row + min(row + 1, MAX_BUFFERS)) * SIZE
    for row in range(10, 20):
        hold(cache, row, unsaved=1e-3)
    assert cache.n_bytes == 10 * SIZE


def test_states_of_one_shape_share_their_layout(store, residents_of):
    cache = residents_of(store)
    for row in range(2):
        hold(cache, row, unsaved=1e-3)
    assert cache.get(0).snapshot.layout is cache.get(1).snapshot.layout
