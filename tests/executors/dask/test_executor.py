"""The executor's slot table: messages in, events and replies out. Nothing here is a cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from daskhpo.core.commands import Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import (
    AttemptLost,
    Dropped,
    Erred,
    Held,
    Saved,
    SaveFailed,
    SlotsChanged,
    Step,
    Trained,
)
from daskhpo.core.types import CheckpointRef, ReuseProbability
from daskhpo.executors.dask import executor as executor_module
from daskhpo.executors.dask.channel import (
    FatalError,
    Inbox,
    LeaseLost,
    Received,
    ReceivedNews,
    ReleaseSlot,
)
from daskhpo.executors.dask.executor import DaskExecutor
from daskhpo.executors.dask.protocol import (
    Bye,
    Call,
    CannotLoad,
    CutOff,
    EndProcess,
    Exit,
    Flushed,
    Happened,
    Hello,
    Job,
    LeaseCommand,
    LeaseMessage,
    LeaseOrder,
    Live,
    Note,
    Notes,
    Overrun,
    Peer,
    Ready,
    Refused,
    Unreadable,
    Warn,
)


@dataclass
class Place:
    """Where a lease waits: the name of what it said, and its slot."""

    desk: Desk
    name: str

    def send(self, command: LeaseCommand) -> None:
        self.desk.replies.append((self.name, command))


class Desk:
    """An executor, its inbox, and what left it."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.replies: deque[tuple[str, LeaseCommand]] = deque()
        self.told: list[tuple[int, LeaseOrder]] = []
        self.idle: frozenset[int] = frozenset()
        self.refused: list[tuple[int, str, bool]] = []
        self.deleted: list[CheckpointRef] = []
        self.executor = DaskExecutor(self.inbox, self, self.deleted.append, began_at=10.0)

    @property
    def answered(self) -> list[tuple[str, type]]:
        return [(name, type(command)) for name, command in self.replies]

    def tell(self, slot: int, order: LeaseOrder) -> None:
        self.told.append((slot, order))

    def set_idle(self, slots: frozenset[int]) -> None:
        self.idle = slots

    def refuse(self, slot: int, why: str, error: str, *, fatal: bool) -> None:
        self.refused.append((slot, error, fatal))

    def hear(self, *messages: Any) -> list[Any]:
        for message in messages:
            self.inbox.put(message)
        return list(self.executor.poll(self.executor.now() + 0.2))

    def say(
        self, slot: int, message: LeaseMessage, *notes: Note, leaving: bool = False
    ) -> Received:
        reply = Place(self, f"{type(message).__name__}-{slot}")
        return Received(slot, Call(message, notes, leaving), reply, 0.0)

    def hello(self, slot: int, job: str = "", leaving: bool = False) -> Received:
        return self.say(slot, Hello(f"tcp://worker-{slot}", job), leaving=leaving)

    def ignore(self, *messages: Any) -> None:
        """Hear messages that are no event."""
        for message in messages:
            self.inbox.put(message)
        assert list(self.executor.poll(self.executor.now() + 0.02)) == []


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.inbox.close()


def train(trial: int, attempt: int = 1, *, launch: bool = True, until: int = 3) -> Train:
    return Train(trial, attempt, {}, 0, until, None, launch)


def trained(trial: int, *, preempted: bool = False) -> Trained:
    return Trained(trial, 1, (Step(3, {"loss": 1.0}, 0.0),), 0.0, preempted=preempted)


def report(trial: int, *, preempted: bool = False) -> Happened:
    return Happened((trained(trial, preempted=preempted),))


def held(ref: CheckpointRef) -> Happened:
    return Happened((Held(0, 1, ref, 0.0),))


def kinds(events: list[Any]) -> list[type]:
    return [type(event) for event in events]


def test_a_lease_that_says_hello_is_a_slot_and_gets_the_job_that_waits(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    assert desk.answered == []
    (event,) = desk.hear(desk.hello(7))
    assert event == SlotsChanged(1, event.seconds)
    assert event.seconds >= 10.0
    assert desk.answered == [("Hello-7", Job)]


def test_the_job_of_a_worker_is_told_when_its_slot_comes_and_goes(desk: Desk) -> None:
    (event,) = desk.hear(desk.hello(0, job="4711"))
    assert event == SlotsChanged(1, event.seconds, "4711")
    (event,) = desk.hear(LeaseLost(0, "its lease came to an end"))
    assert event == SlotsChanged(0, event.seconds, "4711")


def test_a_report_is_answered_by_the_next_job_of_the_same_slot(desk: Desk) -> None:
    desk.hear(desk.hello(0), desk.hello(1))
    desk.executor.perform([train(0), train(1)])
    desk.replies.clear()
    (event,) = desk.hear(desk.say(0, report(1)))
    assert isinstance(event, Trained)
    desk.executor.perform([Release(1, 1), train(2)])
    assert desk.answered == [("Happened-0", Job)]


def test_a_slot_without_another_job_lets_its_trial_go(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    desk.hear(desk.say(0, report(0)))
    desk.executor.perform([Release(0, 1)])
    assert desk.answered[-1] == ("Happened-0", Release)
    assert desk.idle == frozenset()
    desk.ignore(desk.say(0, Ready()))
    assert desk.idle == {0}
    desk.executor.perform([train(1)])
    assert desk.answered[-1] == ("Ready-0", Job)
    assert desk.idle == frozenset()


@pytest.mark.parametrize("answer", ["train", "save"])
def test_a_slot_that_is_lost_with_its_report_unanswered_breaks_nothing(
    desk: Desk, answer: str
) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    said = desk.say(0, report(0))
    events = desk.hear(said, LeaseLost(0, "its worker died"))
    assert kinds(events) == [Trained, SlotsChanged, AttemptLost]
    go_on = train(0, launch=False, until=9)
    desk.executor.perform(
        [
            go_on
            if answer == "train"
            else Save(0, 1, CheckpointRef(0, 0, 3), ReuseProbability.CERTAIN)
        ]
    )
    desk.executor.perform([Interrupt(0, 1), Release(0, 1)])
    assert desk.told == []
    assert desk.answered[-1] == ("Happened-0", Exit)


def test_a_lease_that_was_given_up_is_told_to_leave(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.hear(LeaseLost(0, "its worker died"))
    desk.inbox.put(desk.say(0, report(0)))
    assert list(desk.executor.poll(desk.executor.now() + 0.05)) == []
    desk.executor.perform([])
    assert desk.answered[-1] == ("Happened-0", Exit)


def test_a_lease_whose_worker_died_before_its_hello_was_heard_is_no_slot(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    desk.inbox.put(LeaseLost(4, "its worker died"))
    desk.inbox.put(desk.hello(4))
    assert list(desk.executor.poll(desk.executor.now() + 0.05)) == []
    desk.executor.perform([])
    assert desk.answered == [("Hello-4", Exit)]
    desk.hear(desk.hello(5))
    assert desk.answered[-1] == ("Hello-5", Job)


def test_a_slot_that_is_given_back_ends_its_trial_first(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    (event,) = desk.hear(ReleaseSlot(0))
    assert event == SlotsChanged(0, event.seconds)
    desk.hear(desk.say(0, report(0)))
    desk.executor.perform([Release(0, 1), train(1)])
    assert desk.answered[-1] == ("Happened-0", Exit)
    assert kinds(
        desk.hear(LeaseLost(0, "its lease came to an end"), ReleaseSlot(1), desk.hello(5))
    ) == [SlotsChanged]


def test_units_of_a_trial_follow_one_another_however_late_their_messages_are(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    now = time.monotonic()
    one, two = Step(1, {"loss": 1.0}, 5.0), Step(2, {"loss": 1.0}, 5.1)  # the worker's clock
    live = Live(0, Trained(0, 1, (one,), 5.0))
    both = desk.say(0, Happened((Trained(0, 1, (one, two), 5.2),)))
    events = desk.hear(ReceivedNews(live, now), replace(both, at=now))
    (first,), (_, second) = (event.steps for event in events)
    assert first.seconds <= second.seconds
    assert events[0].seconds == events[1].seconds == pytest.approx(now - desk.executor._zero)


def test_a_job_without_a_slot_is_withdrawn_when_the_study_stops(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    desk.executor.perform([Interrupt(0, 1)])
    (event,) = desk.executor.poll(None)
    assert isinstance(event, AttemptLost)
    assert not event.blame


def test_code_that_does_not_return_is_given_up_when_the_study_stops(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "INTERRUPT_SECONDS", 0.05)
    desk.hear(desk.hello(0), desk.hello(1))
    desk.executor.perform([train(0), train(1)])
    desk.executor.perform([Interrupt(0, 1), Interrupt(1, 1)])
    slots = dict(desk.executor._slot_of)
    [reported] = desk.hear(desk.say(slots[1], report(1, preempted=True)))
    assert reported.preempted
    desk.executor.perform([Release(1, 1)])
    [changed, lost] = desk.executor.poll(None)
    assert (changed.n_slots, lost.trial, lost.attempt, lost.blame) == (1, 0, 1, False)
    assert "after the study was stopped" in lost.reason
    desk.ignore()  # once
    desk.replies.clear()
    desk.ignore(desk.say(slots[0], report(0)))  # it returned at last
    desk.executor.perform([])
    assert list(desk.replies) == [(f"Happened-{slots[0]}", Exit(write=True))]


def overrun(trial: int, slot: int = 0) -> ReceivedNews:
    error = Erred(trial, 1, "StepTimeout: 9 s without a report", 0.0, retry=True)
    return ReceivedNews(Overrun(slot, trained(trial), error), 0.0)


def test_a_trial_that_broke_a_limit_fails_with_its_units_and_its_process_ends(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    reported, erred, changed = desk.hear(overrun(0))
    assert (type(reported), reported.steps[-1].resource) == (Trained, 3)
    assert (erred.error, erred.retry) == ("StepTimeout: 9 s without a report", True)
    assert (type(changed), changed.n_slots) == (SlotsChanged, 0)
    assert desk.told == [(0, EndProcess("StepTimeout: 9 s without a report"))]
    desk.executor.perform([Release(0, 1), train(1)])  # no slot is left for it
    desk.ignore(overrun(0), LeaseLost(0, "its worker is gone"))


def test_a_limit_that_is_told_too_late_is_ignored(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    desk.hear(desk.say(0, report(0)))
    desk.executor.perform([Release(0, 1), train(1)])
    desk.ignore(overrun(0))
    assert desk.told == []


def test_an_interrupted_trial_has_the_time_of_two_of_its_units(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    slot = desk.executor._slots[0]
    slot.unit_began = -1000.0  # the unit took about 1000 seconds
    desk.hear(desk.say(0, report(0)))
    desk.executor.perform([train(0, launch=False)])
    desk.executor.perform([Interrupt(0, 1)])
    assert slot.deadline is not None
    assert slot.deadline - desk.executor.now() > 1900
    desk.executor.perform([Release(0, 1)])
    assert slot.deadline is None


def test_a_warning_of_a_worker_is_logged_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.ignore(*(ReceivedNews(Warn(slot, "look at this"), 0.0) for slot in (0, 1, 1)))
    assert [record.getMessage() for record in caplog.records] == ["look at this"]


def test_a_paused_trial_that_trains_again_for_want_of_a_state_is_warned_of_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.hear(desk.hello(0))
    for trial in (0, 1):
        desk.executor.perform([train(trial)])
        desk.hear(desk.say(0, report(trial)))
        desk.executor.perform([Save(trial, 1, REF, ReuseProbability.LIKELY)])
        desk.hear(desk.say(0, Happened((Held(trial, 1, None, 0.0),))))
        assert len(caplog.records) == trial
        desk.executor.perform([Release(trial, 1), train(trial, 2, until=9)])
        desk.executor.perform([Release(trial, 2)])
        assert "trial 0 is resumed, but gave no state" in caplog.text


def test_checkpoints_that_nobody_needs_are_deleted_before_it_closes(desk: Desk) -> None:
    committed = CheckpointRef(4, 0, 3, "a", 10)
    desk.executor.perform([Delete(committed), Delete(CheckpointRef(5, 0, 3))])
    desk.executor.close()
    assert desk.deleted == [committed]


# -- states that workers hold --------------------------------------------------------------------


REF = CheckpointRef(7, 0, 3)
COMMITTED = CheckpointRef(7, 0, 3, "a", 10, 1)


def saved(number: int) -> Note:
    return Note(number, Saved(0, 1, COMMITTED, 0.0))


def dropped(number: int, reason: str = "") -> Note:
    return Note(number, Dropped(0, 1, REF.id, reason, 0.0))


def save_failed(number: int) -> Note:
    return Note(number, SaveFailed(0, 1, REF.id, "no space", 0.0))


@pytest.fixture
def holder(desk: Desk) -> Desk:
    """Slots 0 and 1; slot 0 has just said that it holds row 7, and is free again."""
    desk.hear(desk.hello(1), desk.hello(0))
    desk.executor.perform([train(0)])
    desk.hear(desk.say(0, report(0)))
    desk.executor.perform([Save(0, 1, REF, ReuseProbability.LIKELY)])
    assert desk.hear(desk.say(0, held(REF))) == [Held(0, 1, REF, -desk.executor._zero)]
    return desk


def resume(until: int = 9) -> Train:
    return Train(0, 2, {}, 3, until, REF, True)


def test_a_trial_goes_back_to_the_slot_that_holds_its_state(holder: Desk) -> None:
    holder.executor.perform([Release(0, 1)])
    holder.inbox.put(holder.say(0, Ready()))
    holder.executor.poll(holder.executor.now() + 0.05)
    holder.executor.perform([train(5), resume()])
    second, first = holder.replies.pop(), holder.replies.pop()
    assert first == ("Ready-0", Job(resume(), None))
    assert second[1] == Job(train(5), None)


def test_a_trial_whose_slot_is_busy_is_moved_from_its_memory(holder: Desk) -> None:
    holder.executor.perform([Release(0, 1), train(5)])  # slot 0 was freed last, so it is the first
    assert holder.replies[-1][0] == "Happened-0"
    holder.executor.perform([resume()])
    assert holder.replies[-1] == ("Hello-1", Job(resume(), Peer("tcp://worker-0", 0)))


def test_notes_become_events_once_however_often_they_come(holder: Desk) -> None:
    notes = [save_failed(1), saved(2)]
    events = holder.hear(ReceivedNews(Notes(0, tuple(notes)), 0.0))
    assert kinds(events) == [SaveFailed, Saved]
    assert events[1].ref == COMMITTED
    notes.append(dropped(3, "it made room"))
    (event,) = holder.hear(holder.say(0, Ready(), *notes))
    assert (type(event), event.checkpoint_id, event.reason) == (Dropped, 7, "it made room")
    assert holder.executor.poll(holder.executor.now() + 0.02) == []


def test_notes_of_a_worker_that_retired_still_count(holder: Desk) -> None:
    events = holder.hear(LeaseLost(0, "it retired"), ReceivedNews(Notes(0, (saved(1),)), 0.0))
    assert kinds(events) == [SlotsChanged, Dropped, AttemptLost, Saved]


def test_a_worker_whose_code_hangs_writes_its_states_before_it_is_given_up(
    holder: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "INTERRUPT_SECONDS", 0.05)
    holder.executor.perform([train(0, launch=False), Interrupt(0, 1)])
    events = holder.executor.poll(None)
    assert holder.told == [(0, Interrupt(0, 1)), (0, Write(REF))]
    assert kinds(list(events)) == [SlotsChanged, Dropped, AttemptLost]


def test_a_worker_whose_trial_broke_a_limit_writes_its_states_first(
    holder: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "INTERRUPT_SECONDS", 0.05)
    holder.executor.perform([train(0, launch=False)])
    (reported,) = holder.hear(overrun(0))
    assert isinstance(reported, Trained)
    assert holder.told == [(0, Write(REF))]
    events = holder.executor.poll(None)
    assert kinds(list(events)) == [Erred, SlotsChanged, Dropped]
    assert isinstance(holder.told[-1][1], EndProcess)


def test_states_go_with_their_slot(holder: Desk) -> None:
    events = holder.hear(LeaseLost(0, "its worker died"))
    assert [(type(e), e.checkpoint_id, e.reason) for e in events if isinstance(e, Dropped)] == [
        (Dropped, 7, "its worker died")
    ]
    holder.executor.perform([resume()])
    assert holder.replies[-1][1] == Job(resume(), None)


def test_a_state_that_nobody_needs_is_forgotten_where_it_is(holder: Desk) -> None:
    holder.executor.perform([Delete(REF)])
    assert holder.told == [(0, Delete(REF))]
    holder.executor.perform([Delete(COMMITTED)])  # it was written meanwhile
    holder.executor.close()
    assert holder.told == [(0, Delete(REF))]
    assert holder.deleted == [COMMITTED]


def test_a_state_is_written_where_it_is(holder: Desk) -> None:
    holder.executor.perform([Write(REF), Write(CheckpointRef(99, 0, 1))])
    assert holder.told == [(0, Write(REF))]


@pytest.mark.parametrize("write", [True, False])
def test_when_all_is_over_those_who_hold_something_let_go_of_it(holder: Desk, write: bool) -> None:
    holder.executor.perform([Release(0, 1), Flush((7, 8), write)])
    assert holder.replies[-1] == ("Happened-0", Release(0, 1))
    holder.hear(holder.say(0, Ready()), ReleaseSlot(1))
    assert ("Ready-0", Flush((7,), write)) in holder.replies
    assert not any(kind is Flush for name, kind in holder.answered if "-1" in name)
    events = holder.hear(holder.say(0, Flushed(), saved(1)))
    assert kinds(events) == [Saved, Dropped]
    holder.executor.close()
    assert holder.replies[-1] == ("Flushed-0", Exit())


def test_states_stay_if_a_trial_is_added_after_all_is_over(holder: Desk) -> None:
    holder.executor.perform([Release(0, 1), Flush((), write=False)])
    holder.executor.perform([Train(9, 1, {}, 0, 1, None, launch=True)])  # to slot 1
    holder.hear(holder.say(0, Ready()))
    assert not any(kind is Flush for _, kind in holder.answered)
    holder.executor.perform([Flush((7,), write=False)])
    assert ("Ready-0", Flush((7,), write=False)) in holder.replies


def test_a_slot_that_is_given_back_writes_what_may_be_needed_and_says_so(holder: Desk) -> None:
    holder.executor.perform([Release(0, 1)])
    holder.hear(holder.say(0, Ready()), ReleaseSlot(0))
    assert ("Ready-0", Exit(write=True)) in holder.replies
    (event,) = holder.hear(holder.say(0, Bye(), saved(1)))
    assert isinstance(event, Saved)
    holder.executor.perform([])
    assert holder.answered[-1][1] is Exit


def test_a_broken_study_raises_where_it_is_driven(desk: Desk) -> None:
    with pytest.raises(StudyFailed, match="closed"):
        desk.hear(FatalError(StudyFailed("closed")))


# -- slots whose worker is about to go -----------------------------------------------------------


def test_a_slot_that_goes_is_counted_out_before_its_trial_hands_over(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    count, reported = desk.hear(desk.say(0, report(0, preempted=True), leaving=True))
    assert (type(count), count.n_slots) == (SlotsChanged, 0)
    assert (type(reported), reported.preempted) == (Trained, True)
    desk.executor.perform([Save(0, 1, REF, ReuseProbability.CERTAIN)])
    desk.hear(desk.say(0, held(REF), leaving=True))
    desk.executor.perform([Release(0, 1)])
    desk.hear(desk.say(0, Ready(), leaving=True))
    assert desk.replies[-1][1] == Exit(write=True)


def test_an_idle_slot_that_goes_is_let_go_at_once(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    (event,) = desk.hear(ReleaseSlot(0))
    assert event.n_slots == 0
    assert desk.answered == [("Hello-0", Exit)]


def test_a_slot_that_goes_as_it_says_hello_gets_nothing(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    desk.inbox.put(desk.hello(0, leaving=True))
    assert list(desk.executor.poll(desk.executor.now() + 0.02)) == []
    assert desk.answered == [("Hello-0", Exit)]
    desk.hear(desk.hello(1))
    assert desk.answered[-1] == ("Hello-1", Job)


def test_a_job_that_a_slot_refuses_goes_to_another_one_as_the_same_attempt(desk: Desk) -> None:
    desk.hear(desk.hello(0), desk.hello(1))
    desk.executor.perform([train(0, attempt=4)])  # to slot 1, the last that came
    (event,) = desk.hear(desk.say(1, Refused(), leaving=True))
    assert event == SlotsChanged(1, event.seconds)
    assert desk.answered[-2:] == [("Refused-1", Exit), ("Hello-0", Job)]
    assert desk.replies[-1][1] == Job(train(0, attempt=4), None)


def test_a_trial_whose_code_raised_as_its_worker_was_terminated_has_not_failed(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    said = CutOff(trained(0), "RuntimeError: DataLoader worker was killed")
    events = desk.hear(desk.say(0, said, leaving=True))
    assert kinds(events) == [SlotsChanged, Trained, AttemptLost]
    assert not events[-1].blame
    desk.executor.perform([])
    assert desk.answered[-1] == ("CutOff-0", Exit)


def unreadable(desk: Desk, slot: int, ref: CheckpointRef = REF) -> Received:
    return desk.say(slot, Unreadable(ref, "CheckpointMissing: gone"))


@pytest.fixture
def moving(holder: Desk) -> Desk:
    """Slot 0, which holds row 7, is let go of; the trial begins in slot 1 meanwhile."""
    holder.executor.perform([Release(0, 1)])
    holder.inbox.put(holder.say(0, Ready()))
    holder.executor.poll(holder.executor.now() + 0.02)
    holder.hear(ReleaseSlot(0))
    holder.executor.perform([resume()])
    assert holder.replies[-1][1] == Job(resume(), Peer("tcp://worker-0", 0))
    return holder


def test_a_state_that_left_memory_for_the_store_is_read_there(moving: Desk) -> None:
    moving.hear(
        ReceivedNews(
            Notes(
                0,
                (
                    saved(1),
                    dropped(2),
                ),
            ),
            0.0,
        )
    )
    moving.inbox.put(unreadable(moving, 1))
    assert list(moving.executor.poll(moving.executor.now() + 0.02)) == []
    assert moving.answered[-1] == ("Unreadable-1", Job)
    assert moving.replies[-1][1].train.checkpoint == COMMITTED


def test_a_state_that_may_still_come_to_the_store_is_waited_for(moving: Desk) -> None:
    moving.inbox.put(unreadable(moving, 1))
    assert list(moving.executor.poll(moving.executor.now() + 0.02)) == []
    assert moving.told[-1] == (0, Write(REF))
    assert moving.answered[-1] != ("Unreadable-1", Job)
    assert kinds(moving.hear(moving.say(0, Bye(), saved(1)))) == [Saved]
    moving.executor.perform([])
    assert dict(moving.replies)["Unreadable-1"].train.checkpoint == COMMITTED


@pytest.mark.parametrize("how", ["dropped", "unsaved", "gone"])
def test_a_state_that_does_not_come_to_the_store_is_given_up(moving: Desk, how: str) -> None:
    moving.inbox.put(unreadable(moving, 1))
    moving.executor.poll(moving.executor.now() + 0.02)
    if how == "gone":
        events = moving.hear(LeaseLost(0, "its worker died"))
    else:
        said = {"dropped": dropped(1, "no space"), "unsaved": save_failed(1)}[how]
        events = moving.hear(moving.say(0, Bye(), said))
    lost = events[-1]
    assert (type(lost), lost.trial, lost.attempt, lost.bad_checkpoint) == (AttemptLost, 0, 2, True)


def test_a_committed_state_that_cannot_be_read_is_not_waited_for(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.executor.perform([Train(0, 2, {}, 3, 9, COMMITTED, True)])
    (lost,) = desk.hear(unreadable(desk, 0, COMMITTED))
    assert (type(lost), lost.bad_checkpoint) == (AttemptLost, True)


def test_a_state_that_a_waiting_job_needs_is_written_before_its_slot_ends(holder: Desk) -> None:
    holder.hear(holder.say(1, Bye()), LeaseLost(1, "its lease came to an end"))
    holder.executor.perform([Release(0, 1), train(5)])  # to slot 0
    holder.executor.perform([resume()])  # which waits
    holder.hear(holder.say(0, Refused(), leaving=True))
    assert holder.replies[-1][1] == Exit((7,), write=True)


@pytest.fixture
def saving(desk: Desk) -> Desk:
    """A desk whose slot 0 takes trial 0's state, and has not said so yet."""
    desk.hear(desk.hello(0))
    desk.executor.perform([train(0)])
    desk.hear(desk.say(0, report(0)))
    desk.executor.perform([Save(0, 1, REF, ReuseProbability.LIKELY)])
    return desk


@pytest.mark.parametrize("sent_ahead", [True, False])
@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([dropped(1, "not worth a write")], [Held, Dropped]),
        ([save_failed(1)], [Held, SaveFailed]),
        (
            [save_failed(1), dropped(2, "no space")],
            [Held, SaveFailed, Dropped],
        ),
    ],
)
def test_what_became_of_a_state_follows_when_it_is_said_to_be_held(
    saving: Desk, notes: list[Any], expected: list[type], sent_ahead: bool
) -> None:
    if sent_ahead:  # notes may overtake the call
        saving.inbox.put(ReceivedNews(Notes(0, tuple(notes)), 0.0))
    said = saving.say(0, held(REF), *notes)
    events = saving.hear(said)
    assert kinds(events) == expected
    assert {event.seconds for event in events} == {events[0].seconds}


# -- workers that cannot load the trainable ------------------------------------------------------


def test_a_worker_that_cannot_load_is_refused_and_its_lease_ends(desk: Desk) -> None:
    desk.ignore(desk.say(0, CannotLoad("tcp://worker-0", "no module")))
    assert desk.refused == [(0, ":\nno module", True)]
    assert desk.answered == [("CannotLoad-0", Exit)]


def test_a_worker_that_cannot_load_is_no_reason_to_end_after_another_could(desk: Desk) -> None:
    desk.hear(desk.hello(0))
    desk.hear(LeaseLost(0, "gone"))
    desk.ignore(desk.say(1, CannotLoad("tcp://worker-1", "no module")))
    assert desk.refused == [(1, ":\nno module", False)]
