"""The executor's slot table: messages in, events and replies out. Nothing here is a cluster."""

from __future__ import annotations

import queue
import time
from typing import Any

import pytest

from daskhpo.core.commands import Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import (
    AttemptLost,
    Dropped,
    Held,
    Reported,
    Saved,
    SaveFailed,
    SlotsChanged,
)
from daskhpo.core.types import CheckpointRef, ReuseProbability
from daskhpo.executors.dask.executor import DaskExecutor
from daskhpo.executors.dask.messages import Call, FatalError, LeaseLost, LiveUpdate, ReleaseSlot


class Desk:
    """An executor, its inbox, and the replies that left it."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.replies: list[tuple[str, str]] = []  # what they are about
        self.told: list[tuple[Any, ...]] = []
        self.deleted: list[CheckpointRef] = []
        self.executor = DaskExecutor(self.inbox, self, self.deleted.append, began_at=10.0)

    def answer(self, replies: Any) -> None:
        self.messages += replies
        self.replies += [(future, message["do"]) for future, message in replies]

    def tell(self, slot: int, what: str, *numbers: int) -> None:
        self.told.append((slot, what, *numbers))

    def hear(self, *messages: Any) -> list[Any]:
        for message in messages:
            self.inbox.put(message)
        return list(self.executor.poll(self.executor.now() + 0.2))

    def say(self, slot: int, say: str, **data: Any) -> Call:
        usual = {"worker": f"tcp://worker-{slot}", "job": "", "notes": [], "leaving": False}
        data = usual | data
        return Call(slot, say, data, f"{say}-{slot}", 0.0)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def train(trial: int, attempt: int = 1, *, launch: bool = True, until: int = 3) -> Train:
    return Train(trial, attempt, {}, 0, until, None, launch)


def report(slot: int, trial: int, attempt: int = 1) -> dict[str, Any]:
    return {"trial": trial, "attempt": attempt, "steps": [(3, {"loss": 1.0}, 0.0)]}


def kinds(events: list[Any]) -> list[type]:
    return [type(event) for event in events]


def test_a_lease_that_says_hello_is_a_slot_and_gets_the_job_that_waits(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    assert desk.replies == []
    (event,) = desk.hear(desk.say(7, "hello"))
    assert event == SlotsChanged(1, event.seconds)
    assert event.seconds >= 10.0
    assert desk.replies == [("hello-7", "train")]


def test_the_job_of_a_worker_is_told_when_its_slot_comes(desk: Desk) -> None:
    (event,) = desk.hear(desk.say(0, "hello", job="4711"))
    assert event == SlotsChanged(1, event.seconds, "4711")
    (event,) = desk.hear(LeaseLost(0, "its lease came to an end"))
    assert event == SlotsChanged(0, event.seconds)


def test_a_report_is_answered_by_the_next_job_of_the_same_slot(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"), desk.say(1, "hello"))
    desk.executor.perform([train(0), train(1)])
    desk.replies.clear()
    (event,) = desk.hear(desk.say(0, "report", outcome="UNTIL", **report(0, trial=1)))
    assert isinstance(event, Reported)
    desk.executor.perform([Release(1, 1), train(2)])
    assert desk.replies == [("report-0", "train")]


def test_a_slot_without_another_job_lets_its_trial_go(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    desk.hear(desk.say(0, "report", outcome="UNTIL", **report(0, 0)))
    desk.executor.perform([Release(0, 1)])
    assert desk.replies[-1] == ("report-0", "idle")
    desk.inbox.put(desk.say(0, "ready"))
    assert list(desk.executor.poll(desk.executor.now() + 0.05)) == []
    desk.executor.perform([train(1)])
    assert desk.replies[-1] == ("ready-0", "train")


@pytest.mark.parametrize("answer", ["train", "save"])
def test_a_slot_that_is_lost_with_its_report_unanswered_breaks_nothing(
    desk: Desk, answer: str
) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    said = desk.say(0, "report", outcome="UNTIL", **report(0, 0))
    events = desk.hear(said, LeaseLost(0, "its worker died"))
    assert kinds(events) == [Reported, SlotsChanged, AttemptLost]
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
    assert desk.replies[-1] == ("report-0", "exit")


def test_a_lease_that_was_given_up_is_told_to_leave(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.hear(LeaseLost(0, "its worker died"))
    desk.inbox.put(desk.say(0, "report", outcome="UNTIL", **report(0, 0)))
    assert list(desk.executor.poll(desk.executor.now() + 0.05)) == []
    desk.executor.perform([])
    assert desk.replies[-1] == ("report-0", "exit")


def test_a_lease_whose_worker_died_before_its_hello_was_heard_is_no_slot(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    desk.inbox.put(LeaseLost(4, "its worker died"))
    desk.inbox.put(desk.say(4, "hello"))
    assert list(desk.executor.poll(desk.executor.now() + 0.05)) == []
    desk.executor.perform([])
    assert desk.replies == [("hello-4", "exit")]
    desk.hear(desk.say(5, "hello"))
    assert desk.replies[-1] == ("hello-5", "train")


def test_a_slot_that_is_given_back_ends_its_trial_first(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    (event,) = desk.hear(ReleaseSlot(0))
    assert event == SlotsChanged(0, event.seconds)
    desk.hear(desk.say(0, "report", outcome="UNTIL", **report(0, 0)))
    desk.executor.perform([Release(0, 1), train(1)])
    assert desk.replies[-1] == ("report-0", "exit")
    assert kinds(
        desk.hear(LeaseLost(0, "its lease came to an end"), ReleaseSlot(1), desk.say(5, "hello"))
    ) == [SlotsChanged]


def test_units_of_a_trial_follow_one_another_however_late_their_messages_are(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    now = time.monotonic()
    live = {"slot": 0, "trial": 0, "attempt": 1, "steps": [(1, {"loss": 1.0}, 0.0)]}
    both = {
        "notes": [],
        "leaving": False,
        "trial": 0,
        "attempt": 1,
        "steps": [(1, {"loss": 1.0}, 0.2), (2, {"loss": 1.0}, 0.1)],
    }
    events = desk.hear(
        LiveUpdate(live, now), Call(0, "report", both | {"outcome": "UNTIL"}, "reply", now)
    )
    (first,), (_, second) = (event.steps for event in events)
    assert first.seconds <= second.seconds


def test_a_job_without_a_slot_is_withdrawn_when_the_study_stops(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    desk.executor.perform([Interrupt(0, 1)])
    (event,) = desk.executor.poll(None)
    assert isinstance(event, AttemptLost)
    assert not event.blame


def test_checkpoints_that_nobody_needs_are_deleted_before_it_closes(desk: Desk) -> None:
    committed = CheckpointRef(4, 0, 3, "a", 10)
    desk.executor.perform([Delete(committed), Delete(CheckpointRef(5, 0, 3))])
    desk.executor.close()
    assert desk.deleted == [committed]


# -- states that workers hold --------------------------------------------------------------------


REF = CheckpointRef(7, 0, 3)
COMMITTED = CheckpointRef(7, 0, 3, "a", 10, 1)


def note(number: int, kind: str, ref: CheckpointRef = COMMITTED, text: str = "") -> tuple[Any, ...]:
    return (number, kind, 1, ref.plain(), text)


@pytest.fixture
def holder(desk: Desk) -> Desk:
    """Slots 0 and 1; slot 0 has just said that it holds row 7, and is free again."""
    desk.hear(desk.say(1, "hello"), desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    desk.hear(desk.say(0, "report", outcome="UNTIL", **report(0, 0)))
    desk.executor.perform([Save(0, 1, REF, ReuseProbability.LIKELY)])
    assert desk.hear(desk.say(0, "held", trial=0, attempt=1, ref=REF.plain())) == [
        Held(0, 1, REF, -desk.executor._zero)
    ]
    return desk


def resume(until: int = 9) -> Train:
    return Train(0, 2, {}, 3, until, REF, True)


def test_a_trial_goes_back_to_the_slot_that_holds_its_state(holder: Desk) -> None:
    holder.executor.perform([Release(0, 1)])
    holder.inbox.put(holder.say(0, "ready"))
    holder.executor.poll(holder.executor.now() + 0.05)
    holder.executor.perform([train(5), resume()])
    (to, first), (_, second) = holder.messages[-2:]
    assert to == "ready-0"
    assert (first["trial"], first["peer"]) == (0, None)
    assert (second["trial"], second["peer"]) == (5, None)


def test_a_trial_whose_slot_is_busy_is_moved_from_its_memory(holder: Desk) -> None:
    holder.executor.perform([Release(0, 1), train(5)])  # slot 0 was freed last, so it is the first
    assert holder.messages[-1][0] == "held-0"
    holder.executor.perform([resume()])
    to, order = holder.messages[-1]
    assert to == "hello-1"
    assert order["peer"] == ("tcp://worker-0", 0)


def test_notes_become_events_once_however_often_they_come(holder: Desk) -> None:
    notes = [note(1, "unsaved", REF, "no space"), note(2, "saved")]
    events = holder.hear(LiveUpdate({"slot": 0, "notes": notes}, 0.0))
    assert kinds(events) == [SaveFailed, Saved]
    assert events[1].ref == COMMITTED
    notes.append(note(3, "dropped", text="it made room"))
    (event,) = holder.hear(holder.say(0, "ready", notes=notes))
    assert (type(event), event.checkpoint_id, event.reason) == (Dropped, 7, "it made room")
    assert holder.executor.poll(holder.executor.now() + 0.02) == []


def test_notes_of_a_worker_that_retired_still_count(holder: Desk) -> None:
    events = holder.hear(
        LeaseLost(0, "it retired"), LiveUpdate({"slot": 0, "notes": [note(1, "saved")]}, 0.0)
    )
    assert kinds(events) == [SlotsChanged, Dropped, AttemptLost, Saved]


def test_states_go_with_their_slot(holder: Desk) -> None:
    events = holder.hear(LeaseLost(0, "its worker died"))
    assert [(type(e), e.checkpoint_id, e.reason) for e in events if isinstance(e, Dropped)] == [
        (Dropped, 7, "its worker died")
    ]
    holder.executor.perform([resume()])
    assert holder.messages[-1][1]["peer"] is None


def test_a_state_that_nobody_needs_is_forgotten_where_it_is(holder: Desk) -> None:
    holder.executor.perform([Delete(REF)])
    assert holder.told == [(0, "forget", 7)]
    holder.executor.perform([Delete(COMMITTED)])  # it was written meanwhile
    holder.executor.close()
    assert holder.told == [(0, "forget", 7)]
    assert holder.deleted == [COMMITTED]


def test_a_state_is_written_where_it_is(holder: Desk) -> None:
    holder.executor.perform([Write(REF), Write(CheckpointRef(99, 0, 1))])
    assert holder.told == [(0, "write", 7)]


@pytest.mark.parametrize("write", [True, False])
def test_when_all_is_over_those_who_hold_something_let_go_of_it(holder: Desk, write: bool) -> None:
    holder.executor.perform([Release(0, 1), Flush((7, 8), write)])
    assert holder.messages[-1] == ("held-0", {"do": "idle"})
    holder.hear(holder.say(0, "ready"), ReleaseSlot(1))
    assert ("ready-0", {"do": "flush", "rows": [7], "write": write}) in holder.messages
    assert not any(message["do"] == "flush" for to, message in holder.messages if "-1" in to)
    events = holder.hear(holder.say(0, "flushed", notes=[note(1, "saved")]))
    assert kinds(events) == [Saved, Dropped]
    holder.executor.close()
    assert holder.messages[-1] == ("flushed-0", {"do": "exit", "write": False})


def test_a_slot_that_is_given_back_writes_what_may_be_needed_and_says_so(holder: Desk) -> None:
    holder.executor.perform([Release(0, 1)])
    holder.hear(holder.say(0, "ready"), ReleaseSlot(0))
    assert ("ready-0", {"do": "exit", "write": True, "rows": []}) in holder.messages
    (event,) = holder.hear(holder.say(0, "bye", notes=[note(1, "saved")]))
    assert isinstance(event, Saved)
    holder.executor.perform([])
    assert holder.messages[-1][1]["do"] == "exit"


def test_a_broken_study_raises_where_it_is_driven(desk: Desk) -> None:
    with pytest.raises(StudyFailed, match="closed"):
        desk.hear(FatalError(StudyFailed("closed")))


# -- slots whose worker is about to go -----------------------------------------------------------


def test_a_slot_that_goes_is_counted_out_before_its_trial_hands_over(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    data = report(0, 0) | {"outcome": "PREEMPTED", "leaving": True}
    count, reported = desk.hear(desk.say(0, "report", **data))
    assert (type(count), count.n_slots) == (SlotsChanged, 0)
    assert (type(reported), reported.preempted) == (Reported, True)
    desk.executor.perform([Save(0, 1, REF, ReuseProbability.CERTAIN)])
    desk.hear(desk.say(0, "held", trial=0, attempt=1, ref=REF.plain(), leaving=True))
    desk.executor.perform([Release(0, 1)])
    desk.hear(desk.say(0, "ready", leaving=True))
    assert desk.messages[-1][1] == {"do": "exit", "write": True, "rows": []}


def test_an_idle_slot_that_goes_is_let_go_at_once(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    (event,) = desk.hear(ReleaseSlot(0))
    assert event.n_slots == 0
    assert desk.replies == [("hello-0", "exit")]


def test_a_slot_that_goes_as_it_says_hello_gets_nothing(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    desk.inbox.put(desk.say(0, "hello", leaving=True))
    assert list(desk.executor.poll(desk.executor.now() + 0.02)) == []
    assert desk.replies == [("hello-0", "exit")]
    desk.hear(desk.say(1, "hello"))
    assert desk.replies[-1] == ("hello-1", "train")


def test_a_job_that_a_slot_refuses_goes_to_another_one_as_the_same_attempt(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"), desk.say(1, "hello"))
    desk.executor.perform([train(0, attempt=4)])  # to slot 1, the last that came
    (event,) = desk.hear(desk.say(1, "refused", leaving=True))
    assert event == SlotsChanged(1, event.seconds)
    assert desk.replies[-2:] == [("refused-1", "exit"), ("hello-0", "train")]
    assert desk.messages[-1][1]["attempt"] == 4


def test_a_trial_whose_code_raised_as_its_worker_was_terminated_has_not_failed(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    said = report(0, 0) | {"error": "RuntimeError: DataLoader worker was killed", "leaving": True}
    events = desk.hear(desk.say(0, "cut", **said))
    assert kinds(events) == [SlotsChanged, Reported, AttemptLost]
    assert not events[-1].blame
    desk.executor.perform([])
    assert desk.replies[-1] == ("cut-0", "exit")


def unreadable(desk: Desk, slot: int, ref: CheckpointRef = REF, **data: Any) -> Call:
    return desk.say(slot, "unreadable", ref=ref.plain(), reason="CheckpointMissing: gone", **data)


@pytest.fixture
def moving(holder: Desk) -> Desk:
    """Slot 0, which holds row 7, is let go of; the trial begins in slot 1 meanwhile."""
    holder.executor.perform([Release(0, 1)])
    holder.inbox.put(holder.say(0, "ready"))
    holder.executor.poll(holder.executor.now() + 0.02)
    holder.hear(ReleaseSlot(0))
    holder.executor.perform([resume()])
    assert holder.messages[-1][1]["peer"] == ("tcp://worker-0", 0)
    return holder


def test_a_state_that_left_memory_for_the_store_is_read_there(moving: Desk) -> None:
    moving.hear(LiveUpdate({"slot": 0, "notes": [note(1, "saved"), note(2, "dropped")]}, 0.0))
    moving.inbox.put(unreadable(moving, 1))
    assert list(moving.executor.poll(moving.executor.now() + 0.02)) == []
    assert moving.replies[-1] == ("unreadable-1", "train")
    assert moving.messages[-1][1]["checkpoint"] == COMMITTED.plain()


def test_a_state_that_may_still_come_to_the_store_is_waited_for(moving: Desk) -> None:
    moving.inbox.put(unreadable(moving, 1))
    assert list(moving.executor.poll(moving.executor.now() + 0.02)) == []
    assert moving.told[-1] == (0, "write", 7)
    assert moving.replies[-1] != ("unreadable-1", "train")
    assert kinds(moving.hear(moving.say(0, "bye", notes=[note(1, "saved")]))) == [Saved]
    moving.executor.perform([])
    order = dict(moving.messages)["unreadable-1"]
    assert (order["do"], order["checkpoint"]) == ("train", COMMITTED.plain())


@pytest.mark.parametrize("how", ["dropped", "unsaved", "gone"])
def test_a_state_that_does_not_come_to_the_store_is_given_up(moving: Desk, how: str) -> None:
    moving.inbox.put(unreadable(moving, 1))
    moving.executor.poll(moving.executor.now() + 0.02)
    if how == "gone":
        events = moving.hear(LeaseLost(0, "its worker died"))
    else:
        events = moving.hear(moving.say(0, "bye", notes=[note(1, how, text="no space")]))
    lost = events[-1]
    assert (type(lost), lost.trial, lost.attempt, lost.bad_checkpoint) == (AttemptLost, 0, 2, True)


def test_a_committed_state_that_cannot_be_read_is_not_waited_for(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([Train(0, 2, {}, 3, 9, COMMITTED, True)])
    (lost,) = desk.hear(unreadable(desk, 0, COMMITTED))
    assert (type(lost), lost.bad_checkpoint) == (AttemptLost, True)


def test_a_state_that_a_waiting_job_needs_is_written_before_its_slot_ends(holder: Desk) -> None:
    holder.hear(holder.say(1, "bye"), LeaseLost(1, "its lease came to an end"))
    holder.executor.perform([Release(0, 1), train(5)])  # to slot 0
    holder.executor.perform([resume()])  # which waits
    holder.hear(holder.say(0, "refused", leaving=True))
    assert holder.messages[-1][1] == {"do": "exit", "write": True, "rows": [7]}


@pytest.fixture
def saving(desk: Desk) -> Desk:
    """A desk whose slot 0 takes trial 0's state, and has not said so yet."""
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    desk.hear(desk.say(0, "report", outcome="UNTIL", **report(0, 0)))
    desk.executor.perform([Save(0, 1, REF, ReuseProbability.LIKELY)])
    return desk


@pytest.mark.parametrize("sent_ahead", [True, False])
@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([note(1, "dropped", REF, "not worth a write")], [Held, Dropped]),
        ([note(1, "unsaved", REF, "no space")], [Held, SaveFailed]),
        (
            [note(1, "unsaved", REF, "no space"), note(2, "dropped", REF, "no space")],
            [Held, SaveFailed, Dropped],
        ),
    ],
)
def test_what_became_of_a_state_follows_when_it_is_said_to_be_held(
    saving: Desk, notes: list[Any], expected: list[type], sent_ahead: bool
) -> None:
    if sent_ahead:  # notes may overtake the call
        saving.inbox.put(LiveUpdate({"slot": 0, "notes": notes}, 0.0))
    said = saving.say(0, "held", trial=0, attempt=1, ref=REF.plain(), notes=notes)
    events = saving.hear(said)
    assert kinds(events) == expected
    assert {event.seconds for event in events} == {events[0].seconds}
