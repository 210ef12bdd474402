"""The line between a lease and the coordinator's thread, over real sockets."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from daskhpo.executors.dask.channel import Inbox, SocketChannel, send_reply


def told(slot: int, say: str, data: dict, end: socket.socket, at: float) -> tuple:
    return slot, say, data, end


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox(told)
    yield inbox
    inbox.close()


def join(inbox: Inbox, slot: int) -> SocketChannel:
    here, there = socket.socketpair()
    inbox.listen(slot, there)
    return SocketChannel(here)


def call(line: SocketChannel, say: str) -> tuple[threading.Thread, list]:
    answers: list = []

    def ask() -> None:
        try:
            answers.append(line.call(say, {"n": 1, "tuple": (1, 2)}))
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def test_a_call_is_a_message_and_its_reply_comes_back(inbox: Inbox) -> None:
    line = join(inbox, 3)
    thread, answers = call(line, "report")
    slot, say, data, end = inbox.get(timeout=10)
    assert (slot, say, data) == (3, "report", {"n": 1, "tuple": (1, 2)})
    send_reply(end, {"do": "train", 7: None})
    thread.join()
    assert answers == [{"do": "train", 7: None}]
    line.close()


def test_messages_of_other_threads_wake_it(inbox: Inbox) -> None:
    threading.Timer(0.01, inbox.put, ["hello"]).start()
    assert inbox.get(timeout=10) == "hello"


def test_it_gives_up_at_its_time_limit(inbox: Inbox) -> None:
    with pytest.raises(queue.Empty):
        inbox.get(timeout=0.01)


def test_a_worker_that_is_gone_disturbs_no_other(inbox: Inbox) -> None:
    gone, stays = join(inbox, 0), join(inbox, 1)
    gone.close()
    thread, answers = call(stays, "hello")
    slot, _, _, end = inbox.get(timeout=10)
    assert slot == 1
    send_reply(end, {"do": "exit"})
    thread.join()
    assert answers == [{"do": "exit"}]
    stays.close()


def test_a_reply_to_a_worker_that_is_gone_is_dropped() -> None:
    here, there = socket.socketpair()
    here.close()
    send_reply(there, {"do": "exit"})
    there.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_waits_when_it_closes_is_let_go(when: str) -> None:
    inbox = Inbox(told)
    if when == "after":
        inbox.close()
    line = join(inbox, 0)
    thread, answers = call(line, "ready")
    if when == "before":
        inbox.get(timeout=10)
        inbox.close()
    thread.join(timeout=10)
    assert isinstance(answers[0], OSError)
    line.close()
