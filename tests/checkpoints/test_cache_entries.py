"""Memory of the cache: which states leave first, and whose memory is used again."""

from __future__ import annotations

import numpy as np
import pytest

from daskhpo.checkpoints.cache_entries import MAX_BUFFERS
from daskhpo.checkpoints.codec import Snapshot
from daskhpo.core.events import Dropped, Saved
from daskhpo.core.types import ReuseProbability
from tests.checkpoints.caching import HOUR, NEVER, SIZE, Desk, no_longer_worth_it, zeros

CERTAIN, LIKELY, UNLIKELY = ReuseProbability


@pytest.mark.parametrize(
    ("held", "gone"),
    [
        # chance, unsaved seconds of each row; the row that leaves when a third comes
        ([(LIKELY, 1e-3), (UNLIKELY, 1e-2), (LIKELY, 1e-3)], 1),
        ([(LIKELY, 3e-3), (LIKELY, 2e-3), (LIKELY, 4e-3)], 1),
        ([(LIKELY, 1e-3), (LIKELY, 1e-3), (LIKELY, 1e-3)], 0),
        ([(LIKELY, 1e-3), (LIKELY, 1e-3), (UNLIKELY, 1.0)], 2),
        ([(UNLIKELY, 2.0), (UNLIKELY, 1.0), (CERTAIN, 0.0)], 1),
    ],
)
def test_poor_states_leave_first_and_then_those_with_the_least_to_lose(held, gone):
    desk = Desk(n_states=2)
    for row, (chance, unsaved) in enumerate(held):
        desk.put(row, chance, unsaved)
    assert desk.notes.brief == [(Dropped, gone)]
    assert desk.state.ids == [row for row in range(3) if row != gone]


def test_of_equal_chances_what_is_written_leaves_first():
    desk = Desk(n_states=2, durability=NEVER)
    desk.put(0, unsaved=1e-3)
    desk.put(1)
    desk.write(1)
    desk.lands()
    desk.put(2)
    assert desk.notes.brief == [(Saved, 1), (Dropped, 1)]
    assert desk.state.ids == [0, 2]


def test_what_is_worth_a_write_is_written_before_it_leaves():
    desk = Desk(n_states=1, durability=NEVER)
    desk.put(0, unsaved=HOUR)
    desk.put(1, unsaved=2 * HOUR)
    assert desk.writing == 0
    assert desk.state.ids == [0, 1]  # above the capacity, for as long as the write takes
    assert desk.state.n_bytes == 2 * SIZE
    desk.lands()
    assert desk.notes.brief == [(Saved, 0), (Dropped, 0)]
    assert desk.state.ids == [1]
    assert desk.state.n_bytes == SIZE


def test_what_waits_to_leave_takes_no_room_from_what_comes():
    desk = Desk(n_states=2, durability=NEVER)
    for row, hours in enumerate([5, 6, 7]):
        desk.put(row, unsaved=hours * HOUR)
    assert desk.writing == 0  # which leaves
    desk.discard(1)
    desk.put(3, unsaved=1e-3)
    assert desk.state.ids == [0, 2, 3]


def test_a_staged_state_makes_no_room_in_memory():
    desk = Desk(n_states=2, durability=NEVER, staging=True)
    desk.put(0, CERTAIN)
    desk.all_land()
    for row in (1, 2, 3):
        desk.put(row, unsaved=row * 1e-3)
    assert desk.notes.brief == [(Saved, 0), (Dropped, 1)]


def test_when_the_disk_is_too_slow_the_least_loss_is_dropped():
    desk = Desk(n_states=1, durability=NEVER)
    for row, hours in enumerate([2, 3, 1, 4]):
        desk.put(row, unsaved=hours * HOUR)
    # row 0 is being written; rows 0 and 1 over-run; when row 3 comes, row 1 or 2 has to go
    assert desk.notes.brief == [(Dropped, 2)]
    assert desk.notes.reason(2) == "memory was full of states that waited to be written"
    assert desk.state.n_bytes == 3 * SIZE
    desk.clear()
    desk.all_land()
    assert {row: desk.notes.of(row) for row in (0, 1, 3)} == {
        row: [Saved, Dropped] for row in (0, 1, 3)
    }


def test_a_small_state_does_not_push_out_a_large_one_that_waits():
    desk = Desk(n_states=0)
    for row in range(2):
        desk.put(row, CERTAIN, of=zeros(10 * SIZE, row))
    desk.put(2, UNLIKELY, 0.0)
    assert desk.notes.brief == [(Dropped, 2)]
    assert desk.state.ids == [0, 1]


@pytest.mark.parametrize(
    ("chance", "unsaved", "expected"),
    [
        (CERTAIN, 0.0, [Saved, Dropped]),
        (LIKELY, HOUR, [Saved, Dropped]),
        (LIKELY, 1e-3, [Dropped]),
        (UNLIKELY, 1.0, [Dropped]),
    ],
)
def test_a_state_larger_than_the_capacity_is_written_or_dropped_at_once(chance, unsaved, expected):
    desk = Desk(n_states=0.5, durability=NEVER)
    desk.put(5, chance, unsaved)
    desk.all_land()
    assert desk.notes.of(5) == expected
    assert desk.state.n_bytes == 0


def test_a_state_that_can_never_stay_pushes_nothing_out():
    desk = Desk(n_states=1)
    desk.put(0, UNLIKELY, 1e-3)
    desk.put(1, LIKELY, 1e-2, of=zeros(10 * SIZE))
    assert desk.notes.brief == [(Dropped, 1)]
    assert desk.state.ids == [0]


# -- buffers -------------------------------------------------------------------------------------


def test_memory_of_a_state_that_left_is_used_again():
    desk = Desk()
    first = desk.put(0, unsaved=1e-3)
    assert desk.buffer() is None
    desk.discard(0)
    assert desk.state.n_bytes == SIZE
    assert desk.buffer(SIZE + 64) is None
    buffer = desk.buffer()
    assert buffer is first.buffer
    assert desk.state.n_bytes == 0
    assert desk.put(1, buffer=buffer, unsaved=1e-3).buffer is buffer
    assert desk.state.n_bytes == SIZE


def test_memory_that_somebody_may_read_is_not_used_again():
    desk = Desk()
    desk.put(0, unsaved=1e-3)
    desk.state.get(0)
    desk.discard(0)
    assert desk.buffer() is None


def test_a_poor_state_gives_its_memory_to_the_next_one():
    desk = Desk(n_states=2)
    desk.put(0, LIKELY, 1e-3)
    poor = desk.put(1, UNLIKELY, 1e-3)
    buffer = desk.buffer()
    assert buffer is poor.buffer
    desk.put(2, LIKELY, 1e-3, buffer=buffer)
    assert desk.buffer() is None  # none but states with a real chance
    assert desk.state.n_bytes == 2 * SIZE
    assert desk.notes.brief == [(Dropped, 1)]


def test_a_poor_state_that_is_worth_a_write_keeps_its_memory():
    desk = Desk(n_states=1, durability=NEVER)
    desk.put(0, UNLIKELY, 1000 * HOUR)
    assert desk.buffer() is None
    assert desk.state.ids == [0]
    assert desk.notes.all == []


def test_a_state_that_is_being_written_gives_its_memory_to_no_other():
    desk = Desk(n_states=2)
    no_longer_worth_it(desk, row=3)
    desk.put(4, LIKELY, 1e-3)
    assert desk.buffer() is None
    desk.lands()
    assert desk.state.ids == [3, 4]


def test_memory_that_cannot_be_written_to_is_no_buffer():
    desk = Desk()
    snap = zeros(SIZE)
    received = Snapshot(np.frombuffer(snap.buffer.tobytes(), np.uint8), snap.layout)
    desk.put(0, LIKELY, 1e-3, of=received)
    desk.discard(0)
    assert desk.buffer(snap.n_bytes) is None
    assert desk.state.n_bytes == 0


def test_buffers_of_another_size_make_room():
    desk = Desk(n_states=3)
    desk.put(0, unsaved=1e-3)
    other = zeros(SIZE // 2)
    assert SIZE < other.n_bytes < 2 * SIZE
    desk.put(1, LIKELY, 1e-3, of=other)
    desk.discard(1)
    assert desk.state.n_bytes == SIZE + other.n_bytes
    assert desk.buffer() is None
    assert desk.state.n_bytes == SIZE


def test_few_buffers_are_kept_and_within_the_capacity():
    desk = Desk(n_states=10)
    for row in range(10):
        desk.put(row, unsaved=1e-3)
    for row in range(10):
        desk.discard(row)
        assert desk.state.n_bytes == (9 - row + min(row + 1, MAX_BUFFERS)) * SIZE
    for row in range(10, 20):
        desk.put(row, unsaved=1e-3)
    assert desk.state.n_bytes == 10 * SIZE


def test_states_of_one_shape_share_their_layout():
    desk = Desk()
    for row in range(2):
        desk.put(row, unsaved=1e-3)
    assert desk.state.get(0).snapshot.layout is desk.state.get(1).snapshot.layout
