"""The executor's slot table: messages in, events and replies out. Nothing here is a cluster."""

from __future__ import annotations

import queue
import time
from typing import Any

import pytest

from daskhpo.core.errors import StudyFailed
from daskhpo.core.types import (
    CheckpointRef,
    Delete,
    Interrupt,
    Lost,
    Release,
    Reported,
    Save,
    SlotsChanged,
    Train,
)
from daskhpo.executors.dask.executor import Broken, Call, DaskExecutor, GiveBack, Gone, Live


class Desk:
    """An executor, its inbox, and the replies that left it."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.replies: list[tuple[str, str]] = []
        self.interrupts: list[tuple[int, int, int]] = []
        self.deleted: list[CheckpointRef] = []
        self.executor = DaskExecutor(self.inbox, self, self.deleted.append, began_at=10.0)

    def answer(self, replies: Any) -> None:
        self.replies += [(future, message["do"]) for future, message in replies]

    def interrupt(self, slot: int, trial: int, attempt: int) -> None:
        self.interrupts.append((slot, trial, attempt))

    def hear(self, *messages: Any) -> list[Any]:
        for message in messages:
            self.inbox.put(message)
        return list(self.executor.poll(self.executor.now() + 0.2))

    def say(self, slot: int, say: str, **data: Any) -> Call:
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
    events = desk.hear(said, Gone(0, "its worker died"))
    assert kinds(events) == [Reported, SlotsChanged, Lost]
    go_on = train(0, launch=False, until=9)
    desk.executor.perform([go_on if answer == "train" else Save(0, 1, CheckpointRef(0, 0, 3))])
    desk.executor.perform([Interrupt(0, 1), Release(0, 1)])
    assert desk.interrupts == []
    assert desk.replies[-1] == ("report-0", "exit")


def test_a_lease_that_was_given_up_is_told_to_leave(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.hear(Gone(0, "its worker died"))
    desk.inbox.put(desk.say(0, "report", outcome="UNTIL", **report(0, 0)))
    assert list(desk.executor.poll(desk.executor.now() + 0.05)) == []
    desk.executor.perform([])
    assert desk.replies[-1] == ("report-0", "exit")


def test_a_slot_that_is_given_back_ends_its_trial_first(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    (event,) = desk.hear(GiveBack(0))
    assert event == SlotsChanged(0, event.seconds)
    desk.hear(desk.say(0, "report", outcome="UNTIL", **report(0, 0)))
    desk.executor.perform([Release(0, 1), train(1)])
    assert desk.replies[-1] == ("report-0", "exit")
    assert kinds(
        desk.hear(Gone(0, "its lease came to an end"), GiveBack(1), desk.say(5, "hello"))
    ) == [SlotsChanged]


def test_units_of_a_trial_follow_one_another_however_late_their_messages_are(desk: Desk) -> None:
    desk.hear(desk.say(0, "hello"))
    desk.executor.perform([train(0)])
    now = time.monotonic()
    live = {"slot": 0, "trial": 0, "attempt": 1, "steps": [(1, {"loss": 1.0}, 0.0)]}
    both = {"trial": 0, "attempt": 1, "steps": [(1, {"loss": 1.0}, 0.2), (2, {"loss": 1.0}, 0.1)]}
    events = desk.hear(
        Live(live, now), Call(0, "report", both | {"outcome": "UNTIL"}, "reply", now)
    )
    (first,), (_, second) = (event.steps for event in events)
    assert first.seconds <= second.seconds


def test_a_job_without_a_slot_is_withdrawn_when_the_study_stops(desk: Desk) -> None:
    desk.executor.perform([train(0)])
    desk.executor.perform([Interrupt(0, 1)])
    (event,) = desk.executor.poll(None)
    assert isinstance(event, Lost)
    assert not event.blame


def test_checkpoints_that_nobody_needs_are_deleted_before_it_closes(desk: Desk) -> None:
    desk.executor.perform([Delete(CheckpointRef(4, 0, 3))])
    desk.executor.close()
    assert desk.deleted == [CheckpointRef(4, 0, 3)]


def test_a_broken_study_raises_where_it_is_driven(desk: Desk) -> None:
    with pytest.raises(StudyFailed, match="closed"):
        desk.hear(Broken(StudyFailed("closed")))
