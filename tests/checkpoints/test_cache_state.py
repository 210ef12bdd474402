"""Which states are written, evicted and dropped, and when: events in, actions out."""

from __future__ import annotations

import pytest

from daskhpo.checkpoints.cache_protocol import Settle, StartStaging, StartWrite
from daskhpo.checkpoints.cache_state import SHUTDOWN_RETRY_SECONDS, WRITE_RETRY_SECONDS
from daskhpo.core.events import Dropped, Saved, SaveFailed
from daskhpo.core.types import ReuseProbability
from daskhpo.testing.stores import a_ref
from tests.checkpoints.caching import HOUR, NEVER, SIZE, Desk, no_longer_worth_it

CERTAIN, LIKELY, UNLIKELY = ReuseProbability

# -- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chance", "unsaved", "durability", "staying", "leaving"),
    [
        (CERTAIN, 0.0, NEVER, [Saved], [Dropped]),
        (LIKELY, 24 * HOUR, 100, [Saved], [Dropped]),
        (LIKELY, HOUR, NEVER, [], [Saved, Dropped]),
        (LIKELY, 1e-3, 100, [], [Dropped]),
        (UNLIKELY, 1000 * HOUR, 100, [Saved], [Dropped]),
        (UNLIKELY, 1000 * HOUR, NEVER, [], [Saved, Dropped]),
        (UNLIKELY, 1.0, 100, [], [Dropped]),
        (UNLIKELY, 1.0, 0, [Saved], [Dropped]),
    ],
)
def test_a_state_is_written_when_that_is_worth_it(chance, unsaved, durability, staying, leaving):
    desk = Desk(durability=durability)
    desk.put(3, chance, unsaved)
    desk.flush()
    desk.all_land()
    assert desk.notes.of(3) == staying
    assert desk.state.ids == [3]
    desk.clear()
    desk.all_land()
    assert desk.notes.of(3) == staying + leaving
    assert desk.state.ids == []


def test_a_sure_state_is_written_at_once_and_told_complete():
    desk = Desk()
    taken = desk.put(3, CERTAIN, 0.0)
    assert desk.in_flight == StartWrite(a_ref(3, trial=3), taken)
    desk.now = 5.0
    desk.lands()
    (saved,) = desk.notes.all
    assert saved == Saved(3, 7, saved.ref, 5.0)
    assert saved.ref.array
    assert desk.state.ids == [3]


def test_an_evicted_state_was_saved_before():
    desk = Desk(n_states=1, durability=NEVER)
    desk.put(0)
    desk.put(1, unsaved=2 * HOUR)
    desk.lands()
    assert desk.notes.brief == [(Saved, 0), (Dropped, 0)]
    assert desk.notes.reason(0) == "evicted for other states"


def test_a_parked_state_can_be_asked_to_be_written():
    desk = Desk()
    desk.put(3, UNLIKELY, 0.0)
    desk.write(4)
    assert desk.in_flight is None
    desk.write(3)
    assert desk.writing == 3


def test_what_was_asked_to_be_written_is_not_dropped_when_it_has_to_leave():
    desk = Desk()
    desk.put(3, UNLIKELY, 0.0)
    desk.write(3)
    desk.fails()
    desk.clear()
    assert desk.writing == 3


def test_the_most_urgent_is_written_first():
    desk = Desk(durability=1.0)
    desk.put(0, CERTAIN)
    desk.put(1, UNLIKELY, 1000 * HOUR)
    desk.put(2, LIKELY, 20 * HOUR)
    desk.put(3, CERTAIN, 0.0)
    desk.put(4, LIKELY, 30 * HOUR)
    assert desk.all_land() == [0, 3, 4, 2, 1]


def test_what_has_to_leave_is_written_before_what_may_stay():
    desk = Desk(n_states=2.5, durability=1.0)
    desk.put(0, CERTAIN)
    desk.put(1, LIKELY, 20 * HOUR)
    desk.put(2, LIKELY, 30 * HOUR)  # pushes out row 0, in flight
    desk.put(3, LIKELY, 40 * HOUR)  # pushes out row 1
    assert desk.all_land() == [0, 1, 3, 2]


def test_a_row_is_held_once():
    desk = Desk()
    desk.put(3)
    with pytest.raises(ValueError, match="checkpoint 3 is held already"):
        desk.put(3)
    assert desk.state.ids == [3]


def test_the_cost_of_a_write_is_learnt():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.put(1, CERTAIN)
    before = desk.state.flush_seconds()
    desk.lands(seconds=1.0)
    assert desk.state.flush_seconds() > before  # of one, where there were two


def test_due_are_the_writes_of_what_is_not_yet_written_and_worth_it():
    desk = Desk(durability=NEVER)
    desk.put(0, UNLIKELY, 1.0)
    assert desk.state.flush_seconds() == 0
    desk.put(1)
    due = desk.state.flush_seconds()
    assert due > 0
    desk.put(2, CERTAIN)
    assert desk.state.flush_seconds() == pytest.approx(2 * due)
    desk.lands(due)  # as expected
    assert desk.state.flush_seconds() == pytest.approx(due)


def test_what_is_lost_with_a_state_is_nothing_once_it_is_written():
    desk = Desk(durability=NEVER)
    desk.put(3, unsaved=12.5)
    assert desk.state.get(3).unsaved_seconds == 12.5
    desk.write(3)
    desk.lands()
    assert desk.state.get(3).unsaved_seconds == 0
    assert desk.state.get(4) is None


# -- discard -------------------------------------------------------------------------------------


def test_a_discarded_state_is_not_written():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.put(1, CERTAIN)
    desk.put(2, UNLIKELY, 0.0)
    for row in (1, 2, 99):
        desk.discard(row)
    desk.close()
    assert desk.all_land() == [0]
    assert desk.notes.brief == [(Saved, 0), (Dropped, 0)]


def test_a_write_in_flight_is_told_although_its_state_was_discarded():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.discard(0)
    assert desk.state.get(0) is None
    assert desk.state.n_bytes == SIZE  # which the thread still reads
    assert desk.buffer() is None
    desk.lands()
    assert desk.notes.brief == [(Saved, 0)]
    assert desk.buffer() is not None


def test_a_write_in_flight_that_fails_is_not_told_if_its_state_was_discarded():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.discard(0)
    desk.fails()
    assert desk.notes.all == []
    assert desk.buffer() is not None


def test_a_row_whose_discarded_state_is_still_being_written_can_be_held_again():
    desk = Desk()
    first = desk.put(0, CERTAIN)
    desk.discard(0)
    desk.put(0, UNLIKELY, 0.0)
    desk.lands()
    assert desk.notes.brief == [(Saved, 0)]
    assert desk.buffer() is first.buffer
    assert desk.state.ids == [0]
    desk.clear()
    assert desk.notes.reason(0) == "not worth a write when it had to leave memory"


# -- flush, clear, close -------------------------------------------------------------------------


def test_a_flush_settles_when_the_last_write_has_ended():
    desk = Desk(durability=100)
    desk.put(0, CERTAIN)
    desk.put(1, LIKELY, 24 * HOUR)
    desk.put(2, LIKELY, 1e-3)  # not worth a write
    desk.flush(5)
    desk.lands()
    assert desk.settled == []
    desk.lands()
    assert desk.settled == [5]
    assert desk.in_flight is None
    assert desk.state.ids == [0, 1, 2]


def test_a_flush_waits_for_one_attempt():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.fails()
    desk.flush(5)  # tried again at once
    desk.fails()
    assert desk.settled == [5]
    assert desk.notes.of(0) == [SaveFailed]


def test_a_flush_does_not_wait_for_what_is_discarded_or_comes_later():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.put(1, CERTAIN)
    desk.flush(5)
    desk.put(2, CERTAIN)
    desk.lands()
    desk.discard(1)
    assert desk.settled == [5]
    assert desk.writing is not None


def test_what_is_told_comes_before_its_flush_settles():
    desk = Desk()
    desk.put(0, UNLIKELY, 0.0)
    *told, last = desk.clear(5)
    assert [notify.event.checkpoint_id for notify in told] == [0]
    assert last == Settle(5)


def test_a_clear_settles_when_nothing_is_held():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.put(1, CERTAIN)
    desk.clear(5)
    desk.lands()
    assert desk.settled == []
    desk.lands()
    assert desk.settled == [5]
    assert desk.state.ids == []


def test_a_clear_waits_for_the_write_of_a_discarded_state():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.discard(0)
    desk.clear(5)
    assert desk.settled == []
    desk.lands()
    assert desk.settled == [5]
    assert desk.notes.brief == [(Saved, 0)]


def test_all_can_be_let_go_of_without_a_write():
    desk = Desk(durability=NEVER)
    desk.put(0, CERTAIN)
    desk.lands()
    desk.put(1)
    desk.put(2, CERTAIN)
    desk.put(3, CERTAIN)
    desk.clear(5, write=False)
    assert desk.notes.brief == [(Saved, 0), (Dropped, 1), (Dropped, 3), (Dropped, 0)]
    assert desk.notes.reason(1) == "all states were dropped"
    assert desk.settled == []  # row 2 is being written
    desk.put(4, CERTAIN)
    assert desk.notes.of(4) == [Dropped]
    desk.fails()
    assert desk.notes.of(2) == [SaveFailed, Dropped]
    assert desk.in_flight is None
    assert desk.settled == [5]


def test_without_a_write_what_is_being_staged_is_dropped_when_that_has_ended():
    desk = Desk(staging=True)
    desk.put(0, CERTAIN)
    desk.clear(5, write=False)
    desk.lands()
    assert desk.notes.brief == [(Dropped, 0)]
    assert len(desk.unlinked) == 1
    assert desk.in_flight is None
    assert desk.settled == [5]


def test_after_a_clear_states_are_held_again():
    desk = Desk()
    desk.put(0)
    desk.clear()
    desk.all_land()
    desk.put(1, unsaved=1e-3)
    assert desk.state.ids == [1]


def test_what_comes_while_all_leave_leaves_too():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.clear(5)
    desk.put(2, UNLIKELY, 0.0)
    desk.put(3, CERTAIN, 0.0)
    assert desk.notes.of(2) == [Dropped]
    desk.all_land()
    assert desk.notes.of(3) == [Saved, Dropped]
    assert desk.settled == [5]


def test_a_closed_cache_holds_nothing():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.close(5)
    desk.put(1, CERTAIN)
    assert desk.all_land() == [0, 1]
    assert desk.settled == [5]
    assert desk.state.is_closed
    assert desk.state.n_bytes == 0  # no buffers, either
    desk.put(2, CERTAIN)
    assert desk.notes.of(2) == [Dropped]
    assert desk.notes.reason(2) == "its worker's cache was closed"
    assert desk.buffer() is None
    desk.close(6)
    assert desk.settled == [5, 6]


# -- a disk that fails ---------------------------------------------------------------------------


def test_a_state_that_cannot_be_written_stays_and_is_tried_again_later():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.fails("no space left")
    (failed,) = desk.notes.all
    assert failed == SaveFailed(0, 7, 0, "no space left", desk.now)
    assert desk.state.ids == [0]
    desk.later(WRITE_RETRY_SECONDS - 1)
    assert desk.in_flight is None
    desk.later(1)
    desk.fails()  # told no more
    desk.later(WRITE_RETRY_SECONDS)
    desk.lands()
    assert desk.notes.of(0) == [SaveFailed, Saved]


@pytest.mark.parametrize("again", [Desk.write, lambda desk, row: desk.flush()])
def test_what_is_asked_for_is_tried_again_at_once(again):
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.fails()
    again(desk, 0)
    assert desk.writing == 0


def test_an_eviction_tries_again_at_once():
    desk = Desk(n_states=1)
    desk.put(0, LIKELY, 24 * HOUR)
    desk.fails()
    desk.put(1, CERTAIN, 48 * HOUR)
    assert desk.all_land() == [1, 0]
    assert desk.notes.of(0) == [SaveFailed, Saved, Dropped]


def test_others_are_written_while_a_failed_one_waits():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.put(1, CERTAIN)
    desk.fails()
    assert desk.writing == 1
    desk.lands()
    assert desk.in_flight is None


def test_a_write_that_is_no_longer_worth_it_ends_before_its_state_leaves():
    desk = Desk()
    no_longer_worth_it(desk, row=3)
    desk.clear()
    assert desk.notes.of(3) == [SaveFailed]
    desk.lands()
    assert desk.notes.of(3) == [SaveFailed, Saved, Dropped]


@pytest.mark.parametrize("has_failed", [True, False])
def test_what_cannot_be_written_when_all_leave_is_dropped_with_the_error(has_failed):
    desk = Desk(durability=NEVER)
    desk.put(0, CERTAIN if has_failed else LIKELY)
    if has_failed:
        desk.fails()
    desk.put(1, UNLIKELY, 0.0)
    desk.clear(5)
    assert desk.notes.of(1) == [Dropped]
    if not has_failed:
        desk.fails()
    assert desk.notes.of(0) == [SaveFailed]
    desk.fails("no space left")
    assert desk.notes.of(0) == [SaveFailed, Dropped]
    assert desk.notes.reason(0) == "could not be written: no space left"
    assert desk.settled == [5]
    assert desk.state.ids == []


# -- the job's end -------------------------------------------------------------------------------


def test_shortly_before_the_jobs_end_all_that_is_worth_it_is_written_and_stays():
    desk = Desk(durability=NEVER)
    desk.put(0, LIKELY, HOUR)
    desk.put(1, LIKELY, 1e-3)
    desk.put(2, UNLIKELY, 1000 * HOUR)
    for left in (None, HOUR, 30.0):
        desk.later(1, left)
        assert desk.in_flight is None
    desk.later(1, 29.9)
    assert sorted(desk.all_land()) == [0, 2]
    desk.put(3, LIKELY, HOUR)
    desk.later(1, 20.0)
    assert desk.all_land() == [3]
    assert desk.state.ids == [0, 1, 2, 3]
    assert [kind for kind, _ in desk.notes.brief] == [Saved] * 3


def test_the_more_there_is_to_write_the_earlier_it_begins():
    desk = Desk(durability=NEVER)
    for row in range(4):
        desk.put(row, CERTAIN)
        desk.lands(seconds=1000.0)  # a slow disk, as is learnt
    desk.put(4)
    expected = desk.state.flush_seconds()
    assert 1.0 < expected < 30.0
    desk.later(1, 100.0)
    assert desk.in_flight is None
    for row in range(5, 6 + int(100.0 / 3 / expected)):
        desk.put(row)
    desk.later(1, 100.0)
    assert desk.in_flight is not None


def test_shortly_before_the_end_what_failed_is_tried_again_sooner():
    desk = Desk()
    desk.put(0, CERTAIN)
    desk.fails()
    desk.later(1, 20.0)
    assert desk.in_flight is None
    desk.later(SHUTDOWN_RETRY_SECONDS, 15.0)
    assert desk.writing == 0


# -- staging -------------------------------------------------------------------------------------


def test_a_state_is_staged_first_which_frees_its_memory_and_counts_when_it_is_in_the_store():
    desk = Desk(staging=True)
    taken = desk.put(0, CERTAIN)
    assert desk.in_flight == StartStaging(taken)
    desk.lands()
    assert desk.notes.all == []
    assert desk.state.n_bytes == SIZE  # the buffer that its memory became
    assert desk.buffer() is taken.buffer
    assert desk.state.n_bytes == 0
    mapped = desk.in_flight.snapshot
    assert mapped.buffer is not taken.buffer
    assert desk.state.get(0).snapshot is mapped
    desk.lands()
    assert desk.notes.brief == [(Saved, 0)]
    assert desk.unlinked == []


def test_what_can_be_staged_is_staged_before_anything_is_written():
    desk = Desk(staging=True)
    for row in range(3):
        desk.put(row, CERTAIN)
    for _ in range(3):
        assert isinstance(desk.in_flight, StartStaging)
        desk.lands()
    assert sorted(desk.all_land()) == [0, 1, 2]


def test_a_parked_state_is_not_staged():
    desk = Desk(staging=True, durability=NEVER)
    desk.put(0)
    assert desk.in_flight is None


def test_a_state_goes_straight_to_the_store_when_staging_fails():
    desk = Desk(staging=True)
    taken = desk.put(0, CERTAIN)
    desk.fails()
    assert desk.in_flight == StartWrite(a_ref(0, trial=0), taken)
    desk.fails()  # it is not staged again
    desk.write(0)
    assert desk.writing == 0


def test_of_what_is_written_the_folder_keeps_as_much_as_the_memory_might():
    desk = Desk(n_states=2, staging=True)
    for row in range(4):
        desk.put(row, CERTAIN)
        desk.all_land()
    assert desk.state.ids == [2, 3]
    assert len(desk.unlinked) == 2
    assert desk.notes.brief[-2:] == [(Saved, 3), (Dropped, 1)]


def test_a_looked_up_state_does_not_give_its_memory_away_when_it_is_staged():
    desk = Desk(staging=True)
    desk.put(0, CERTAIN)
    found = desk.state.get(0)
    desk.lands()
    assert desk.buffer() is None
    assert found.snapshot.buffer.flags.writeable


def test_the_file_of_a_discarded_state_is_removed():
    desk = Desk(staging=True)
    desk.put(0, CERTAIN)
    desk.all_land()
    desk.discard(0)
    assert len(desk.unlinked) == 1


@pytest.mark.parametrize("n_landed", [0, 1])
def test_the_file_of_a_state_that_is_discarded_in_flight_is_removed_afterwards(n_landed):
    desk = Desk(staging=True)
    desk.put(0, CERTAIN)
    for _ in range(n_landed):
        desk.lands()
    desk.discard(0)
    assert desk.unlinked == []
    desk.lands()
    assert len(desk.unlinked) == 1
    assert desk.in_flight is None
    assert desk.notes.of(0) == [Saved] * n_landed
