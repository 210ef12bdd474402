"""The channel between a lease and the coordinator's thread, over real sockets."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daskhpo.core.commands import Release
from daskhpo.core.events import Dropped, Saved, Step, Trained
from daskhpo.core.types import CheckpointRef
from daskhpo.executors.dask.channel import (
    Inbox,
    RequestStop,
    SocketReply,
    SocketTransport,
    StudyChannel,
)
from daskhpo.executors.dask.protocol import (
    NEWS,
    Call,
    Exit,
    Happened,
    LeaseCommand,
    Leaving,
    Live,
    Note,
    Notes,
    Ready,
)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


def join(inbox: Inbox, slot: int) -> SocketTransport:
    here, there = socket.socketpair()
    inbox.listen(slot, there)
    return SocketTransport(here)


def call(transport: SocketTransport, said: Call) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(transport.exchange(said))
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


READY = Call(Ready(), (), leaving=False)


def test_a_call_is_a_message_and_its_reply_comes_back(inbox: Inbox) -> None:
    transport = join(inbox, 3)
    trained = Trained(4, 1, (Step(1, {"loss": 0.5}, 2.0),), 2.5)
    said = Call(Happened((trained,)), (Note(1, Dropped(4, 1, 7, "full", 2.0)),), leaving=True)
    thread, answers = call(transport, said)
    received = inbox.get(timeout=10)
    assert (received.slot, received.call) == (3, said)
    received.reply.send(Release(4, 1))
    thread.join()
    assert answers == [Release(4, 1)]
    transport.close()


def test_messages_of_other_threads_wake_it(inbox: Inbox) -> None:
    threading.Timer(0.01, inbox.put, [RequestStop("enough")]).start()
    assert inbox.get(timeout=10) == RequestStop("enough")


def test_it_gives_up_at_its_time_limit(inbox: Inbox) -> None:
    with pytest.raises(queue.Empty):
        inbox.get(timeout=0.01)


def test_a_worker_that_is_gone_disturbs_no_other(inbox: Inbox) -> None:
    gone, stays = join(inbox, 0), join(inbox, 1)
    gone.close()
    thread, answers = call(stays, READY)
    received = inbox.get(timeout=10)
    assert received.slot == 1
    received.reply.send(Exit())
    thread.join()
    assert answers == [Exit()]
    stays.close()


def test_a_reply_to_a_worker_that_is_gone_is_dropped() -> None:
    here, there = socket.socketpair()
    here.close()
    SocketReply(there).send(Exit())
    there.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lease_that_waits_when_the_inbox_closes_gets_an_error(when: str) -> None:
    inbox = Inbox()
    if when == "after":
        inbox.close()
    transport = join(inbox, 0)
    thread, answers = call(transport, READY)
    if when == "before":
        inbox.get(timeout=10)
        inbox.close()
    thread.join(timeout=10)
    assert isinstance(answers[0], OSError)
    transport.close()


# -- the lease's channel: what it adds to a transport --------------------------------------------


class Line:
    """A transport that remembers calls, and may break."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.broken = False
        self.meanwhile: Callable[[], None] = lambda: None

    def exchange(self, call: Call) -> LeaseCommand:
        if self.broken:
            raise ConnectionError("cut")
        self.calls.append(call)
        self.meanwhile()
        return Exit()

    def close(self) -> None:
        self.broken = True


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def pushed() -> list[Any]:
    return []


@pytest.fixture
def channel(line: Line, pushed: list[Any]) -> StudyChannel:
    return StudyChannel(
        line, lambda data: pushed.append(NEWS.decode(data)), lambda *_: None, 5, lambda: False
    )


def saved(checkpoint_id: int) -> Saved:
    return Saved(0, 1, CheckpointRef(checkpoint_id, 0, 3, "a", 8, 9), 1.0)


def test_a_note_is_sent_at_once_and_again_with_the_next_call(
    channel: StudyChannel, line: Line, pushed: list[Any]
) -> None:
    channel.notify(saved(1))
    channel.notify(saved(2))
    notes = (Note(1, saved(1)), Note(2, saved(2)))
    assert pushed == [Notes(5, notes[:1]), Notes(5, notes[1:])]
    assert channel.unacknowledged() == Notes(5, notes)
    channel.call(Ready())
    assert line.calls[0].notes == notes
    channel.call(Ready())
    assert line.calls[1].notes == ()


def test_a_note_that_comes_during_a_call_goes_with_the_next(
    channel: StudyChannel, line: Line
) -> None:
    channel.notify(saved(1))
    line.meanwhile = lambda: channel.notify(saved(2))
    channel.call(Ready())
    assert channel.unacknowledged().notes == (Note(2, saved(2)),)


def test_notes_of_a_call_that_failed_are_kept(channel: StudyChannel, line: Line) -> None:
    channel.notify(saved(1))
    line.broken = True
    with pytest.raises(ConnectionError):
        channel.call(Ready())
    assert channel.unacknowledged().notes == (Note(1, saved(1)),)


def test_each_call_says_whether_the_worker_leaves(line: Line, pushed: list[Any]) -> None:
    leaving = False
    channel = StudyChannel(line, pushed.append, lambda *_: None, 5, lambda: leaving)
    channel.call(Ready())
    leaving = True
    channel.call(Ready())
    assert [call.leaving for call in line.calls] == [False, True]


def test_live_units_and_the_workers_end_are_pushed(
    channel: StudyChannel, pushed: list[Any]
) -> None:
    trained = Trained(4, 1, (Step(1, {"loss": 0.5}, 2.0),), 2.5)
    channel.push_live(trained)
    channel.push_leaving()
    assert pushed == [Live(5, trained), Leaving(5)]
